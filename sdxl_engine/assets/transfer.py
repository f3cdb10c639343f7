"""One file over HTTP into its `Part`: resumed, retried, held to its size and digest.

Ranges, validators and their answers: RFC 9110, sections 13.1.5, 14 and 15; Retry-After: section 10.2.3.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.assets.part import Part
    from sdxl_engine.assets.sources import Place

    Progress = Callable[[int, int | None], None]

_BLOCK = 1 << 20
_CONNECT_S, _READ_S = 10.0, 60.0
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_NOT_RETRIED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.SSLError,
)


class MissingAtSourceError(AssetError):
    """The server does not have the file."""


@dataclass(frozen=True)
class Patience:
    """How long a server is asked again.

    Args:
        failures: In a row, without a byte more, until it is given up.
        first_s: Wait after the first of them, in seconds; twice as long after each more.
        most_s: The longest wait that a server may ask for.
    """

    failures: int = 6
    first_s: float = 1.0
    most_s: float = 300.0


class _AgainError(Exception):
    """The transfer stopped and may be gone on with, after so many seconds where the server says how many."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def fetch(place: Place, part: Part, progress: Progress, patience: Patience | None = None) -> None:
    """Download one file and put it where it belongs.

    Args:
        place: Where it is.
        part: Where it goes, and what it must be.
        progress: Told after each block how many bytes are there, and how many there will be where that is known.
        patience: With a server that fails.

    Raises:
        MissingAtSourceError: the server does not have it.
        AssetError: it could not be had, or is not what it must be.
    """
    patience = patience or Patience()
    url, failures, reached = str(place.where), 0, part.size
    with requests.Session() as session:
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "pytest-sdxl", **place.headers})
        while True:
            try:
                _body(session, place, part, progress)
            except _AgainError as again:
                failures = 1 if part.size > reached else failures + 1
                reached = max(reached, part.size)
                if failures >= patience.failures:
                    raise _failed(url, again, "repeat the command: it goes on where it stopped") from None
                wait = patience.first_s * 2.0 ** (failures - 1) if again.wait_s is None else again.wait_s
                if wait > patience.most_s:
                    raise _failed(url, again, f"repeat the command in {wait:.0f} s") from None
                time.sleep(wait)
                continue
            resumed = part.resumed
            found = part.finish()
            if not found:
                return
            # What an earlier download left may be wrong where the server is right: once more, from the beginning.
            if not resumed:
                raise part.refused(f"{part.asset.algorithm} {found}", url)


def _body(session: requests.Session, place: Place, part: Part, progress: Progress) -> None:
    """One request, from where the part ends to the end of the file."""
    url, size = str(place.where), part.asset.size
    if size is not None and part.size > size:
        part.discard()
    start = part.size
    if start and start == size:
        return
    ask = {"Range": f"bytes={start}-"} | ({"If-Range": part.etag} if part.etag else {}) if start else {}
    try:
        with session.get(
            url, headers=ask, stream=True, timeout=(_CONNECT_S, _READ_S), allow_redirects=place.redirects
        ) as response:
            begin, total = _answered(response, start, part)
            if None not in (total, size) and total != size:
                raise part.refused(f"{total} bytes", url)
            total = total if total is not None else size
            etag = response.headers.get("ETag", "")
            with part.opened("" if etag.startswith("W/") else etag, anew=begin == 0):
                # Not `iter_content`, which loses the block that a cut connection was in.
                while block := response.raw.read1(_BLOCK, decode_content=False):
                    part.write(block)
                    if total is not None and part.size > total:
                        part.discard()
                        raise part.refused(f"more than {total} bytes", url)
                    progress(part.size, total)
    except _NOT_RETRIED as error:
        raise _failed(url, error) from None
    except (requests.RequestException, HTTPError) as error:
        raise _AgainError(str(error)) from None
    if total is not None and part.size < total:
        raise _AgainError(f"the connection ended after {part.size} of {total} bytes")


def _answered(response: requests.Response, start: int, part: Part) -> tuple[int, int | None]:
    """Where the body begins in the file, and the size of the file where the server says it.

    Raises:
        MissingAtSourceError: there is no such file.
        AssetError: the server refuses.
        _AgainError: the server asks to come again, or cannot go on where the part ends.
    """
    status, given = response.status_code, response.headers
    if status == 200:
        length = given.get("Content-Length")
        return 0, int(length) if length and length.isdecimal() else None
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given.get("Content-Range", ""))
        if found and start and int(found[1]) == start:
            return start, None if found[2] == "*" else int(found[2])
    if status in (206, 416) and start:
        part.discard()
        raise _AgainError(f"HTTP {status} for a range from {start}", 0.0)
    says = f"HTTP {status} {response.reason}"
    if status in _AGAIN:
        raise _AgainError(says, _retry_after(given.get("Retry-After", "")))
    if status in (404, 410):
        raise MissingAtSourceError("the source does not have this file", got=says, source=response.url)
    fix = "set HF_TOKEN (Hugging Face) or CF_ACCESS_TOKEN (MLCommons)" if status in (302, 401, 403) else None
    raise AssetError("the source refused", got=says, source=response.url, fix=fix)


def _retry_after(value: str) -> float | None:
    try:
        return Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def _failed(url: str, error: Exception, fix: str | None = None) -> AssetError:
    return AssetError("the download failed", got=error, source=url, fix=fix)
