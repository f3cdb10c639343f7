"""Distances of the images of two runs, caption by caption: PSNR, and LPIPS where its network is here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sdxl_engine.accuracy.paired import SignTest, sign_test
from sdxl_engine.errors import AssetError
from sdxl_engine.images import from_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.lpips import Lpips

BATCH = 8


@dataclass(frozen=True)
class Distances:
    """Of each caption's image in one folder to its image in another.

    Args:
        psnr: Peak signal-to-noise ratio by caption id, dB; infinite for equal images.
        lpips: By caption id; empty where it was not computed.
    """

    psnr: dict[int, float]
    lpips: dict[int, float] = field(default_factory=dict)


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two images, dB; infinite for equal ones.

    10 log10(255^2 / MSE), the mean over all pixels and channels.

    Args:
        first: (H, W, 3) uint8, 0 to 255.
        second: The same shape.
    """
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def measure_distances(first: Path, second: Path, ids: Sequence[int], lpips: Lpips | None = None) -> Distances:
    """Compare two folders of `<id>.png`, streamed.

    Args:
        first: A folder.
        second: Another one.
        ids: Each has its picture in both.
        lpips: Of `load_lpips`; None leaves LPIPS out.

    Raises:
        AssetError: a picture is missing, is not a picture, or is not of the first one's size, or not square.
    """
    result = Distances({})
    if not ids:
        return result
    side = picture_side(first / f"{ids[0]}.png")
    pictures = zip(from_folder(first, ids, side, BATCH), from_folder(second, ids, side, BATCH), strict=True)
    for (some, ours), (_, theirs) in pictures:
        for key, one, other in zip(some, ours, theirs, strict=True):
            result.psnr[key] = psnr(one, other)
            if lpips is not None:
                result.lpips[key] = lpips(one, other)
    return result


def nearer(run: dict[int, float], baseline: dict[int, float]) -> SignTest:
    """Sign test of distances to the same third images: `lower` counts captions whose value is lower in the run.

    Args:
        run: PSNR or LPIPS of the run's images to the third ones, by caption id.
        baseline: Those of the baseline's images, of the same ids.
    """
    # Equal infinities are a tie, but their difference is no number.
    return sign_test([0.0 if value == baseline[key] else value - baseline[key] for key, value in run.items()])


def picture_side(path: Path) -> int:
    """Pixels per side of a square picture.

    Raises:
        AssetError: it is missing, is not a picture, or is not square.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError as error:
        raise AssetError("a picture cannot be read", got=error, expected="<id>.png", source=path) from None
    if width != height:
        raise AssetError("a picture has the wrong size", got=(width, height), expected="a square", source=path)
    return width
