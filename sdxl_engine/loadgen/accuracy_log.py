"""LoadGen's accuracy log as a stream of responses, with the digests of each and of the whole file."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from sdxl_engine.loadgen.logs import bad_log, shown
from sdxl_engine.loadgen.read_ahead import HashedLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCURACY_LOG = "mlperf_log_accuracy.json"

_HEAD = re.compile(rb'\{ "seq_id" : \d+, "qsl_idx" : (\d+), "data" : "')
_TAIL = re.compile(rb'" \}(,?)\r?\n\Z')
_OPEN = (b"[\n", b"[\r\n")
_CLOSE = (b"]", b"]\r", b"]\n", b"]\r\n")
_CORRUPT = "LoadGen's accuracy log is corrupt"


class Entry(NamedTuple):
    """One response: its index in the sample library, its bytes, and the hex SHA-256 of these bytes."""

    qsl_idx: int
    data: bytes
    sha256: str


class AccuracyLog:
    """`mlperf_log_accuracy.json`, read in one pass that holds one response at a time.

    LoadGen writes a JSON list with one entry per line; 5000 images of 1024 x 1024 make 31.46 GB, which no JSON
    parser should load whole.

    Args:
        path: The log.
        sample_count: If given, each index in [0, sample_count) must be there exactly once, and no other.
    """

    def __init__(self, path: Path, sample_count: int | None = None) -> None:
        self.path = path
        self._sample_count = sample_count
        self._file_sha256: str | None = None

    @property
    def file_sha256(self) -> str:
        """Hex SHA-256 of the whole file, which `accuracy.txt` gives; known once `entries` has come to its end.

        Raises:
            RuntimeError: it has not.
        """
        if self._file_sha256 is None:
            raise RuntimeError(f"{self.path} has not been read to its end")
        return self._file_sha256

    def entries(self) -> Iterator[Entry]:
        """The responses in the order of the log. Hex digits may be of either case, line ends LF or CR LF.

        Raises:
            AssetError: the file is missing, cut off, or a line is not what LoadGen writes; a response is empty,
                comes twice, has an index out of range, or is missing. Names the file and the line. Entries before
                the fault have been yielded by then.
            OSError: the file cannot be read.
        """
        if not self.path.is_file():
            expected = "a log of a finished accuracy test"
            raise bad_log(self.path, "LoadGen's accuracy log is missing", "no file", expected)
        self._file_sha256 = None
        lines = HashedLines(self.path)
        seen: set[int] = set()
        number, open_list, more = 0, False, False  # `more`: the line before ended in a comma
        for number, line in enumerate(lines, 1):
            where = f"{self.path}:{number}"
            if number == 1:
                if line not in _OPEN:
                    raise bad_log(where, _CORRUPT, _both_ends(line), "an opening bracket")
                open_list = True
            elif line in _CLOSE and open_list and not more:
                open_list = False
            elif not open_list or (seen and not more):
                expected = "a comma between entries, and nothing after the closing bracket"
                raise bad_log(where, _CORRUPT, _both_ends(line), expected)
            else:
                index, data, more = _parse(line, where)
                self._check(index, seen, where)
                seen.add(index)
                yield Entry(index, data, hashlib.sha256(data).hexdigest())
        if open_list or number == 0:
            got = f"{len(seen)} entries and no closing bracket"
            where = f"{self.path}:{number}"
            raise bad_log(where, "LoadGen's accuracy log is cut off", got, "a closing bracket at its end")
        if self._sample_count is not None and len(seen) < self._sample_count:
            missing = sorted(set(range(self._sample_count)) - seen)
            listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
            got = f"{len(seen)} responses; missing: qsl_idx {listed}"
            raise bad_log(self.path, "samples were not answered", got, f"{self._sample_count} responses")
        self._file_sha256 = lines.sha256()

    def _check(self, index: int, seen: set[int], where: str) -> None:
        if index in seen:
            raise bad_log(where, "a sample was answered twice", f"qsl_idx {index} again", "each index once")
        if self._sample_count is not None and index >= self._sample_count:
            expected = f"an index below {self._sample_count}"
            raise bad_log(where, "a response is for no sample of the run", f"qsl_idx {index}", expected)


def _parse(line: memoryview, where: str) -> tuple[int, bytes, bool]:
    """Take `{ "seq_id" : 0, "qsl_idx" : 1, "data" : "00AB" },` apart: (index, data, whether a comma follows)."""
    head, tail = _HEAD.match(line), _TAIL.search(line[-6:])
    start, stop = (head.end(), len(line) - len(tail[0])) if head and tail else (0, -1)
    if head is None or tail is None or start > stop:
        expected = '{ "seq_id" : N, "qsl_idx" : N, "data" : "HEX" } on one whole line'
        raise bad_log(where, f"{_CORRUPT} or cut off", _both_ends(line), expected)
    text, index = line[start:stop], int(head[1])
    if not text:
        expected = "the image's bytes in hex"
        raise bad_log(where, "a response in LoadGen's accuracy log is empty", f"no data for qsl_idx {index}", expected)
    try:
        return index, binascii.unhexlify(text), tail[1] == b","
    except binascii.Error as error:
        got = f"{error} (qsl_idx {index}, {len(text)} characters)"
        raise bad_log(where, _CORRUPT, got, "pairs of hex digits") from None


def _both_ends(line: memoryview) -> str:
    """`shown` of a line that may be megabytes long."""
    return shown(bytes(line) if len(line) <= 1000 else bytes(line[:500]) + bytes(line[-500:]))
