"""Scores a run's images as they come, without keeping them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Moments, frechet_distance
from sdxl_engine.errors import AccuracyError
from sdxl_engine.results import Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import MetricNetworks


class Scorer:
    """CLIP score and FID of one run's images, which are told apart by their ids.

    Kept are one float for each id, one embedding for each different caption, and the moments of the features:
    memory does not grow with the images. Their order and batches change the scores by rounding only.

    Args:
        networks: The metric variant.
        captions: The caption of every id that the run must give an image for.
        batch_size: How many images go through a network at once.
    """

    def __init__(self, networks: MetricNetworks, captions: Mapping[int, str], batch_size: int = 32) -> None:
        if not captions:
            raise AccuracyError("there is nothing to score", got="no captions")
        if batch_size < 1:
            raise AccuracyError("the scorer's batch size is not positive", got=batch_size, expected="1 or more")
        self.networks = networks
        self.captions = captions
        self.batch_size = batch_size
        self.moments = Moments(networks.features.dims)
        self._clip = ClipScore(networks.clip)
        self._per_id: dict[int, float] = {}
        self._image_shape: tuple[int, ...] | None = None

    @property
    def per_id(self) -> dict[int, float]:
        """CLIP score of each id so far, in the order of the captions; a copy."""
        return {key: self._per_id[key] for key in self.captions if key in self._per_id}

    @property
    def fid_rank(self) -> str:
        """Whether there are enough images for a covariance of full rank: one more than dimensions.

        `full: ...` or `deficient: ...`. FID of a deficient covariance is biased and compares with
        nothing but runs of the same count.
        """
        n, dims = self.moments.n, self.networks.features.dims
        return f"{'full' if n > dims else 'deficient'}: {n} images for {dims} dimensions"

    def add(self, ids: Sequence[int], images: NDArray[np.uint8]) -> None:
        """Score a batch.

        Args:
            ids: B ids, each in `captions` and none scored before.
            images: (B, H, W, 3) uint8 RGB, 0 to 255; H and W the same in every call.

        Raises:
            AccuracyError: an id is foreign or comes a second time, or the array is of another shape or
                type. Nothing of the batch is scored then.
        """
        keys = [int(key) for key in ids]
        self._check_ids(keys)
        self._check_images(keys, images)
        self._image_shape = images.shape[1:]
        for start in range(0, len(keys), self.batch_size):
            part = slice(start, start + self.batch_size)
            clip = self._clip(images[part], [self.captions[key] for key in keys[part]])
            self.moments.update(self.networks.features(images[part]))
            self._per_id.update(zip(keys[part], clip.tolist(), strict=True))

    def scores(self) -> Scores:
        """Mean CLIP score and FID of all captions; NaN if any image's score or features are.

        Raises:
            AccuracyError: a caption has no image yet, or there is just one image.
        """
        missing = [key for key in self.captions if key not in self._per_id]
        if missing:
            raise AccuracyError(
                "the run is not complete",
                got=f"no image for {len(missing)} of {len(self.captions)} ids: {_first(missing)}",
                expected="one image for each caption",
            )
        true = self.networks.statistics
        return Scores(
            # fsum rounds once, so that the order of the images cannot show.
            clip=math.fsum(self._per_id.values()) / len(self._per_id),
            fid=frechet_distance(self.moments.mean, self.moments.covariance, true.mu, true.sigma),
            count=len(self._per_id),
            variant=self.networks.variant,
            identity=self.networks.identity | {"fid_rank": self.fid_rank},
        )

    def _check_ids(self, ids: list[int]) -> None:
        foreign = [key for key in ids if key not in self.captions]
        if foreign:
            raise AccuracyError(
                "images of ids that are not in this run",
                got=_first(foreign),
                expected=f"the ids of the run's {len(self.captions)} captions",
            )
        twice = [key for key, count in Counter(ids).items() if count > 1 or key in self._per_id]
        if twice:
            raise AccuracyError("a second image for the same id", got=_first(twice), expected="one image for each id")

    def _check_images(self, ids: list[int], images: NDArray[np.uint8]) -> None:
        size = self._image_shape or ("H", "W", 3)
        right_shape = images.ndim == 4 and images.shape[0] == len(ids) and images.shape[3] == 3
        if (
            not right_shape
            or 0 in images.shape[1:]
            or images.shape[1:] != (self._image_shape or images.shape[1:])
            or images.dtype != np.uint8
        ):
            raise AccuracyError(
                f"images that cannot be scored, of ids {_first(ids)}",
                got=f"{images.dtype} {images.shape}",
                expected=f"uint8 ({', '.join(map(str, (len(ids), *size)))})",
            )


def _first(ids: Iterable[int], limit: int = 8) -> str:
    """The ids as text, the first few of many."""
    listed = list(ids)
    return ", ".join(map(str, listed[:limit])) + (", ..." if len(listed) > limit else "")
