"""Images of a run in batches by caption id, from LoadGen's accuracy log or from a folder of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdxl_engine.errors import AccuracyError, AssetError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from sdxl_engine.loadgen.accuracy_log import AccuracyLog

Batch = tuple[list[int], NDArray[np.uint8]]


def from_log(log: AccuracyLog, ids: Sequence[int], side: int, size: int, done: Collection[int] = ()) -> Iterator[Batch]:
    """Read an accuracy log as a stream.

    Args:
        log: Its `qsl_idx` is the row in `ids`. Once the batches have come to their end, it knows its digest.
        ids: Caption ids in the order of the run.
        side: Pixels per side.
        size: Images per batch.
        done: Ids to leave out.

    Yields:
        Caption ids and images (B, side, side, 3) uint8, RGB.

    Raises:
        AssetError: the log is corrupt; AccuracyError: a response is not an image of this run.
    """

    def decoded() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, data, _ in log.entries():
            if index >= len(ids) or len(data) != side * side * 3:
                raise AccuracyError(
                    "a logged response is not an image of this run",
                    got=f"sample {index}, {len(data)} bytes",
                    expected=f"a sample below {len(ids)}, {side * side * 3} bytes ({side}x{side} RGB)",
                    source=log.path,
                )
            if ids[index] not in done:
                yield ids[index], np.frombuffer(data, dtype=np.uint8).reshape(side, side, 3)

    return _batches(decoded(), size)


def from_folder(folder: Path, ids: Sequence[int], side: int, size: int, done: Collection[int] = ()) -> Iterator[Batch]:
    """Read `<id>.png` of every id; see `from_log`.

    Raises:
        AssetError: a picture is missing, is not a picture, or has another size.
    """

    def decoded() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for identifier in (key for key in ids if key not in done):
            path = folder / f"{identifier}.png"
            try:
                with Image.open(path) as picture:
                    array = np.asarray(picture.convert("RGB"))
            except OSError as error:
                raise AssetError("a picture cannot be read", got=error, expected="<id>.png", source=path) from None
            if array.shape != (side, side, 3):
                raise AssetError("a picture has the wrong size", got=array.shape, expected=(side, side, 3), source=path)
            yield identifier, array

    return _batches(decoded(), size)


def _batches(images: Iterable[tuple[int, NDArray[np.uint8]]], size: int) -> Iterator[Batch]:
    ids: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    for identifier, picture in images:
        ids.append(identifier)
        pictures.append(picture)
        if len(ids) == size:
            yield ids, np.stack(pictures)
            ids, pictures = [], []
    if ids:
        yield ids, np.stack(pictures)
