"""The record of a scored run: what each image scored, appended block by block, so that nothing is scored twice.

Scores follow from the record alone (`tally.py`), so a killed run goes on where its record ends, the records of
shards merge, and the images need not be kept.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

RECORD = "sdxl_scores.jsonl"
"""Its name in a run's log folder."""

FORMAT = "sdxl-engine scores 1"
_SUM = ', "crc32": "'
_TAIL = len(_SUM) + 8 + len('"}')


@dataclass(frozen=True)
class Block:
    """Images that went through the metric networks together.

    Args:
        ids: B caption ids.
        digests: B hex SHA-256 sums of the images' bytes (H x W x 3 uint8, RGB).
        clip: (B,) float64, 100 times cosine.
        features: (B, D) float32, for FID.
    """

    ids: tuple[int, ...]
    digests: tuple[str, ...]
    clip: NDArray[np.float64]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Record:
    """A record as read: what it says of its run, and its blocks in the order they were scored.

    Args:
        header: What the run was; see `sdxl_engine.accuracy.run_header`.
        blocks: Whole ones.
        size: Bytes of the file up to the end of the last whole line; what follows was cut off by a kill.
    """

    header: dict[str, Any]
    blocks: tuple[Block, ...]
    size: int

    @property
    def clip(self) -> dict[int, float]:
        """CLIP score by caption id."""
        return {key: float(score) for block in self.blocks for key, score in zip(block.ids, block.clip, strict=True)}

    @property
    def digests(self) -> dict[int, str]:
        """Hex SHA-256 of the image by caption id."""
        return {key: digest for block in self.blocks for key, digest in zip(block.ids, block.digests, strict=True)}


class RecordWriter:
    """Appends blocks to a record; each is on the disk when `append` returns.

    Args:
        path: The file.
        header: Of a new record, which replaces what is at `path`; None goes on with `record`.
        record: What `read_record` gave for `path`.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None, record: Record | None = None) -> None:
        if (header is None) == (record is None):
            raise ValueError("a record is either begun with a header or gone on with")
        self._file = path.open("wb" if record is None else "r+b")
        if record is not None:
            self._file.truncate(record.size)
            self._file.seek(record.size)
        else:
            self._write({"format": FORMAT, "header": dict(header or {})})

    def append(self, block: Block) -> None:
        """Add one block."""
        self._write(
            {
                "ids": block.ids,
                "sha256": block.digests,
                # JSON has no NaN; repr and so JSON's numbers give a float64 back to the last bit.
                "clip": [score if math.isfinite(score) else None for score in block.clip.tolist()],
                "features": base64.b64encode(block.features.astype("<f4").tobytes()).decode(),
            }
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        text = json.dumps(value, allow_nan=False)
        self._file.write(f'{text[:-1]}{_SUM}{zlib.crc32(text.encode()):08x}"}}\n'.encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def read_record(path: Path) -> Record:
    """Read a record; a last line that a kill cut off is left out.

    Raises:
        AssetError: the file is missing, or a line before its last is damaged; names the line.
    """
    if not path.is_file():
        raise AssetError("there is no record of a scored run", expected=RECORD, source=path)
    header: dict[str, Any] | None = None
    blocks: list[Block] = []
    size = 0
    with path.open("rb") as file:
        lines = iter(enumerate(file, 1))
        for number, line in lines:
            try:
                value = _checked(line)
                if header is None:
                    header = _header(value)
                else:
                    blocks.append(_block(value))
            except (ValueError, KeyError, TypeError, binascii.Error) as error:
                if header is not None and next(lines, None) is None and not line.endswith(b"\n"):
                    break
                raise AssetError(
                    "the record of a scored run is damaged",
                    got=f"{type(error).__name__}: {error}",
                    expected=f"lines of {FORMAT!r}, each with its checksum",
                    source=f"{path}:{number}",
                    fix="score the run again",
                ) from None
            size += len(line)
    if header is None:
        raise AssetError("the record of a scored run is empty", expected=RECORD, source=path)
    return Record(header, tuple(blocks), size)


def _checked(line: bytes) -> dict[str, Any]:
    """The value of one line whose checksum holds."""
    text = line.decode("utf-8")
    if not text.endswith('"}\n') or not text[-_TAIL - 1 :].startswith(_SUM):
        raise ValueError(f"no checksum at its end: {text[-40:]!r}")
    body = text[: -_TAIL - 1] + "}"
    said, found = text[-11:-3], f"{zlib.crc32(body.encode()):08x}"
    if said != found:
        raise ValueError(f"crc32 {found}, but it says {said}")
    value: dict[str, Any] = json.loads(body)
    return value


def _header(value: dict[str, Any]) -> dict[str, Any]:
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']!r}")
    return {str(name): entry for name, entry in value["header"].items()}


def _block(value: dict[str, Any]) -> Block:
    ids = tuple(int(key) for key in value["ids"])
    clip = np.array([math.nan if score is None else score for score in value["clip"]], np.float64)
    flat = np.frombuffer(base64.b64decode(value["features"], validate=True), "<f4").astype(np.float32)
    digests = tuple(str(digest) for digest in value["sha256"])
    if not ids or not len(ids) == len(clip) == len(digests):
        raise ValueError(f"{len(ids)} ids, {len(digests)} digests, {len(clip)} scores")
    return Block(ids, digests, clip, flat.reshape(len(ids), -1))
