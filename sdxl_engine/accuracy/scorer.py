"""Puts images through the metric networks: what each one scores, apart from all others of its run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.records import Block
from sdxl_engine.accuracy.tally import first_of
from sdxl_engine.errors import AccuracyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import MetricNetworks

BLOCK = 32
"""Images that are scored together. A run's blocks begin at multiples of it in the order of its captions, so that a
run that was killed, or is done in shards, puts the same images together and gets the same bits."""


class Scorer:
    """Scores images of one run.

    Args:
        networks: The metric variant.
        captions: The caption of every id that the run must give an image for.
    """

    def __init__(self, networks: MetricNetworks, captions: Mapping[int, str]) -> None:
        self.networks = networks
        self.captions = captions
        self._clip = ClipScore(networks.clip)
        self._image_shape: tuple[int, ...] | None = None

    def score(self, ids: Sequence[int], images: NDArray[np.uint8]) -> Block:
        """Score a block.

        Args:
            ids: B ids, each in `captions`.
            images: (B, H, W, 3) uint8 RGB, 0 to 255; H and W the same in every call.

        Raises:
            AccuracyError: an id is foreign, or the array is of another shape or type.
        """
        keys = [int(key) for key in ids]
        foreign = [key for key in keys if key not in self.captions]
        if foreign:
            raise AccuracyError(
                "images of ids that are not in this run",
                got=first_of(foreign),
                expected=f"the ids of the run's {len(self.captions)} captions",
            )
        self._check_images(keys, images)
        self._image_shape = images.shape[1:]
        images = np.ascontiguousarray(images)
        return Block(
            ids=tuple(keys),
            digests=tuple(hashlib.sha256(image).hexdigest() for image in images),
            clip=self._clip(images, [self.captions[key] for key in keys]),
            features=self.networks.features(images),
        )

    def _check_images(self, ids: list[int], images: NDArray[np.uint8]) -> None:
        size = self._image_shape or ("H", "W", 3)
        right_shape = images.ndim == 4 and images.shape[0] == len(ids) and images.shape[3] == 3
        if (
            not right_shape
            or 0 in images.shape
            or images.shape[1:] != (self._image_shape or images.shape[1:])
            or images.dtype != np.uint8
        ):
            raise AccuracyError(
                f"images that cannot be scored, of ids {first_of(ids)}",
                got=f"{images.dtype} {images.shape}",
                expected=f"uint8 ({', '.join(map(str, (len(ids), *size)))})",
            )
