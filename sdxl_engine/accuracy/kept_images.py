"""The images of a run that are kept as pictures: all of them, or the worst ones, for the reader of a failure."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

IMAGES = "images"
"""Folder of `<id>.png` in the log folder of a run."""

WORST = 16
"""How many of the worst images are kept: 50 MB at most for 1024x1024."""


class KeptImages:
    """Writes `<id>.png` of images as they are scored.

    Args:
        folder: Where they go.
        most: How many to keep, those that lost most CLIP score against the baseline; None keeps all.
        baseline: CLIP score by caption id; ids that are not in it are compared with nothing, and rank by their score.
        scored: CLIP score by caption id of what an earlier part of the run has scored, some of which is kept already.
    """

    def __init__(
        self, folder: Path, most: int | None, baseline: Mapping[int, float], scored: Mapping[int, float] | None = None
    ) -> None:
        self._folder, self._most, self._baseline = folder, most, baseline
        self._kept = {
            key: self._change(key, score)
            for key, score in (scored or {}).items()
            if most is not None and self._path(key).is_file()
        }

    def see(self, ids: tuple[int, ...], clip: NDArray[np.float64], images: NDArray[np.uint8]) -> None:
        """Take in scored images.

        Args:
            ids: B caption ids.
            clip: (B,) their CLIP scores; one that is no number is worse than any other.
            images: (B, H, W, 3) uint8, RGB.
        """
        if self._most is None:
            wanted = dict(zip(ids, images, strict=True))
        else:
            entered = [key for key, score in zip(ids, clip.tolist(), strict=True) if self._enters(key, score)]
            rows = {key: row for row, key in enumerate(ids)}
            # One that entered may have left for a later one of its block.
            wanted = {key: images[rows[key]] for key in entered if key in self._kept}
        # PIL compresses without holding the interpreter's lock, a tenth of a second for 1024x1024.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(self._write, wanted, wanted.values()))

    def _write(self, key: int, image: NDArray[np.uint8]) -> None:
        from PIL import Image

        with written_whole(self._path(key)) as aside:
            # Level 1 takes a fifth of the default's time for a tenth more bytes.
            Image.fromarray(image).save(aside, format="PNG", compress_level=1)

    def _enters(self, key: int, score: float) -> bool:
        """Whether an image is among the worst; the best of them leaves then, if there are too many."""
        assert self._most is not None
        self._kept[key] = self._change(key, score)
        if len(self._kept) <= self._most:
            return True
        best = max(self._kept, key=lambda kept: (self._kept[kept], kept))
        del self._kept[best]
        self._path(best).unlink(missing_ok=True)
        return best != key

    def _change(self, key: int, score: float) -> float:
        change = score - self._baseline.get(key, 0.0)
        return -math.inf if math.isnan(change) else change

    def _path(self, key: int) -> Path:
        return self._folder / f"{key}.png"
