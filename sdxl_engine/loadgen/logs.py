"""LoadGen's detail log as a mapping. Its other log is in `accuracy_log.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from pathlib import Path

DETAIL_LOG = "mlperf_log_detail.txt"

_MARK = ":::MLLOG "


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
        raise bad_log(path, "LoadGen's detail log is missing", "no file", "a log of a finished test")
    entries = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.startswith(_MARK):
                continue
            try:
                entry = json.loads(line[len(_MARK) :])
                _ = entry["key"], entry["value"], entry["time_ms"], entry["metadata"]["is_error"]
            except (ValueError, KeyError, TypeError):
                raise bad_log(
                    f"{path}:{number}",
                    "LoadGen's detail log is corrupt",
                    shown(line.encode()),
                    f"{_MARK}and an object with key, value, time_ms and metadata.is_error",
                ) from None
            entries.append(entry)
    return DetailLog(entries)


def shown(line: bytes) -> str:
    """A line for a message: both ends if it is long, as the end shows whether it was cut off."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 120 else f"{text[:70]} … {text[-40:]}")


def bad_log(source: object, what: str, got: str, expected: str) -> AssetError:
    """The error for a log of LoadGen's that is not as LoadGen writes it; `source` is the file, or file:line."""
    fix = "run the test again; if the log was cut off, see whether the disk is full"
    return AssetError(what, got=got, expected=expected, source=source, fix=fix)
