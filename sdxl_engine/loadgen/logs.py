"""Readers of LoadGen's two logs: the detail log as a mapping, the accuracy log as a stream of responses."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from pathlib import Path

DETAIL_LOG = "mlperf_log_detail.txt"
ACCURACY_LOG = "mlperf_log_accuracy.json"

_MARK = ":::MLLOG "
_ENTRY = re.compile(rb'\{ "seq_id" : \d+, "qsl_idx" : (\d+), "data" : "')


class DetailLog(Mapping[str, Any]):
    """`mlperf_log_detail.txt` by key; a key that was logged more than once gives its last value.

    Args:
        entries: The parsed lines, in order.
    """

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries
        self._last = {entry["key"]: entry["value"] for entry in entries}

    def __getitem__(self, key: str) -> Any:
        return self._last[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def every(self, key: str) -> list[Any]:
        """All values logged under `key`, in order."""
        return [entry["value"] for entry in self._entries if entry["key"] == key]

    @property
    def errors(self) -> tuple[str, ...]:
        """The lines that LoadGen marked as errors, as `key: value`."""
        return tuple(f"{entry['key']}: {entry['value']}" for entry in self._entries if entry["metadata"]["is_error"])

    @property
    def effective(self) -> dict[str, Any]:
        """The settings in effect, without LoadGen's prefix `effective_`."""
        prefix = "effective_"
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def seconds_since(self, key: str) -> float:
        """Seconds on LoadGen's own clock from the first line under `key` to the last line of the log."""
        first = next(entry["time_ms"] for entry in self._entries if entry["key"] == key)
        return float(self._entries[-1]["time_ms"] - first) / 1e3


def read_detail(path: Path) -> DetailLog:
    """Read `mlperf_log_detail.txt` (lines of `:::MLLOG {json}`; other lines are skipped).

    Raises:
        AssetError: the file is missing, or a line is not what LoadGen writes; names the line.
    """
    if not path.is_file():
        raise _bad(path, "LoadGen's detail log is missing", "no file", "a log of a finished test")
    entries = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.startswith(_MARK):
                continue
            try:
                entry = json.loads(line[len(_MARK) :])
                _ = entry["key"], entry["value"], entry["time_ms"], entry["metadata"]["is_error"]
            except (ValueError, KeyError, TypeError):
                raise _bad(
                    f"{path}:{number}",
                    "LoadGen's detail log is corrupt",
                    _shown(line.encode()),
                    f"{_MARK}and an object with key, value, time_ms and metadata.is_error",
                ) from None
            entries.append(entry)
    return DetailLog(entries)


def accuracy_entries(path: Path, sample_count: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Stream the responses of `mlperf_log_accuracy.json`, holding one at a time.

    LoadGen writes a JSON list with one entry per line; 5000 images of 1024 x 1024 make 31 GB, which no JSON
    parser should load whole.

    Args:
        path: The log.
        sample_count: If given, each index in [0, sample_count) must be there exactly once, and no other.

    Yields:
        (index in the sample library, the response's bytes), in the order of the log.

    Raises:
        AssetError: the file is missing, cut off, or a line is not what LoadGen writes; a response is empty,
        comes
            twice, has an index out of range, or is missing. Names the file and the line. Entries before the
            fault have been yielded by then.
    """
    if not path.is_file():
        raise _bad(path, "LoadGen's accuracy log is missing", "no file", "a log of a finished accuracy test")
    seen: set[int] = set()
    number, open_list, more = 0, False, False  # `more`: the line before ended in a comma
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            if number == 1:
                if line != b"[\n":
                    raise _bad(where, "LoadGen's accuracy log is corrupt", _shown(line), "an opening bracket")
                open_list = True
            elif line.rstrip() == b"]" and open_list and not more:
                open_list = False
            elif not open_list or (seen and not more):
                expected = "a comma between entries, and nothing after the closing bracket"
                raise _bad(where, "LoadGen's accuracy log is corrupt", _shown(line), expected)
            else:
                index, data, more = _entry(line, where)
                if index in seen:
                    raise _bad(where, "a sample was answered twice", f"qsl_idx {index} again", "each index once")
                if sample_count is not None and index >= sample_count:
                    expected = f"an index below {sample_count}"
                    raise _bad(where, "a response is for no sample of the run", f"qsl_idx {index}", expected)
                seen.add(index)
                yield index, data
    if open_list or number == 0:
        got = f"{len(seen)} entries and no closing bracket"
        raise _bad(f"{path}:{number}", "LoadGen's accuracy log is cut off", got, "a closing bracket at its end")
    if sample_count is not None and len(seen) < sample_count:
        missing = sorted(set(range(sample_count)) - seen)
        listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        got = f"{len(seen)} responses; missing: qsl_idx {listed}"
        raise _bad(path, "samples were not answered", got, f"{sample_count} responses")


def _entry(line: bytes, where: str) -> tuple[int, bytes, bool]:
    """Parse `{ "seq_id" : 0, "qsl_idx" : 1, "data" : "00AB" },`: (index, data, whether a comma follows)."""
    head = _ENTRY.match(line)
    if head is None or not line.endswith((b'" },\n', b'" }\n')):
        expected = '{ "seq_id" : N, "qsl_idx" : N, "data" : "HEX" } on one whole line'
        raise _bad(where, "LoadGen's accuracy log is corrupt or cut off", _shown(line), expected)
    more = line.endswith(b",\n")
    text = memoryview(line)[head.end() : -5 if more else -4]  # a view: lines are megabytes long
    index = int(head[1])
    if not text:
        expected = "the image's bytes in hex"
        raise _bad(where, "a response in LoadGen's accuracy log is empty", f"no data for qsl_idx {index}", expected)
    try:
        return index, binascii.unhexlify(text), more
    except binascii.Error as error:
        got = f"{error} (qsl_idx {index}, {len(text)} characters)"
        raise _bad(where, "LoadGen's accuracy log is corrupt", got, "pairs of hex digits") from None


def _shown(line: bytes) -> str:
    """A line for a message: both ends if it is long, as the end shows whether it was cut off."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 120 else f"{text[:70]} … {text[-40:]}")


def _bad(source: object, what: str, got: str, expected: str) -> AssetError:
    fix = "run the test again; if the log was cut off, see whether the disk is full"
    return AssetError(what, got=got, expected=expected, source=source, fix=fix)
