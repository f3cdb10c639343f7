"""Single images of a finished run, found in its log folder; and the true pictures of captions of `shapes`."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.image_pairs import picture_side
from sdxl_engine.accuracy.kept_images import IMAGES
from sdxl_engine.images import from_folder
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.shapes.grammar import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def saved_ids(folder: Path | None, ids: Iterable[int]) -> list[int]:
    """Which of `ids` have their picture in a run's log folder."""
    return [] if folder is None else [key for key in ids if (folder / IMAGES / f"{key}.png").is_file()]


def find_images(folder: Path | None, digests: Mapping[int, str]) -> dict[int, NDArray[np.uint8]]:
    """The images that were scored, from the saved pictures or else from LoadGen's accuracy log.

    The log is read as a stream up to the last image wanted; it tells its images apart by sample, not by caption id,
    so they are known by their digests.

    Args:
        folder: A run's log folder; None has no images.
        digests: Hex SHA-256 of each wanted image by caption id; a picture with another one is not what was scored.

    Returns:
        (S, S, 3) uint8 RGB by caption id, for those that were found.

    Raises:
        AssetError: a picture or the log is damaged.
    """
    if folder is None:
        return {}
    found: dict[int, NDArray[np.uint8]] = {}
    saved = saved_ids(folder, digests)
    if saved:
        side = picture_side(folder / IMAGES / f"{saved[0]}.png")
        for (key,), (image,) in from_folder(folder / IMAGES, saved, side, 1):
            if hashlib.sha256(image).hexdigest() == digests[key]:
                found[key] = image
    missing = {digest for key, digest in digests.items() if key not in found}
    log = folder / ACCURACY_LOG
    for _, data, digest in AccuracyLog(log).entries() if missing and log.is_file() else ():
        if digest in missing:
            missing.remove(digest)
            side = math.isqrt(len(data) // 3)
            image = np.frombuffer(data, np.uint8).reshape(side, side, 3)
            found |= {key: image for key, known in digests.items() if known == digest}
        if not missing:
            break
    return found


def true_renders(captions: Mapping[int, str]) -> dict[int, NDArray[np.uint8]]:
    """The picture that each caption of the `shapes` grammar describes, without jitter; others are left out.

    Returns:
        (128, 128, 3) uint8 RGB by caption id.
    """
    from sdxl_engine.shapes.render import render, scene_tensors

    scenes = {}
    for key, caption in captions.items():
        try:
            scenes[key] = parse(caption)
        except ValueError:
            continue
    if not scenes:
        return {}
    pictures = render(scene_tensors(list(scenes.values()))).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return dict(zip(scenes, pictures, strict=True))
