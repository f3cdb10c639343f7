"""Puts images through the metric networks: what each one scores, apart from all others of its run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.errors import AccuracyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import Metric, MetricNetworks


class ImageScorer(Protocol):
    """Scores images of one run, wherever its networks are: a `Scorer`, or a `ProcessScorer`."""

    @property
    def metric(self) -> Metric:
        """What the images are scored with."""

    def room(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory of the caller's own, whose images `score` takes without a copy; uint8, its content undefined."""

    def score(
        self, images: NDArray[np.uint8], captions: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """See `Scorer.score`."""


class Scorer:
    """Scores images of one run in this process.

    Args:
        networks: The metric variant.
    """

    def __init__(self, networks: MetricNetworks) -> None:
        self.networks = networks
        self._clip = ClipScore(networks.clip)
        self._image_shape: tuple[int, ...] | None = None

    @property
    def metric(self) -> Metric:
        """What the images are scored with."""
        return self.networks.metric

    def room(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `ImageScorer.room`."""
        return np.empty(shape, np.uint8)

    def score(
        self, images: NDArray[np.uint8], captions: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Score a block.

        Args:
            images: (B, H, W, 3) uint8 RGB, 0 to 255; H and W the same in every call.
            captions: B captions.

        Returns:
            CLIP scores (B,) float64 in [-100, 100], and features (B, D) float32.

        Raises:
            AccuracyError: the array is of another shape or type.
        """
        self._check(images, len(captions))
        self._image_shape = images.shape[1:]
        images = np.ascontiguousarray(images)
        if self.networks.clip.device == "cpu":
            return self._clip(images, captions), self.networks.features(images)
        # PIL's resizes are the longest part and the CPU's: the GPU computes the features meanwhile.
        with ThreadPoolExecutor(1, thread_name_prefix="features") as apart:
            features = apart.submit(self.networks.features, images)
            return self._clip(images, captions), features.result()

    def _check(self, images: NDArray[np.uint8], count: int) -> None:
        size = self._image_shape or ("H", "W", 3)
        right_shape = images.ndim == 4 and images.shape[0] == count and images.shape[3] == 3
        if (
            not right_shape
            or 0 in images.shape
            or images.shape[1:] != (self._image_shape or images.shape[1:])
            or images.dtype != np.uint8
        ):
            raise AccuracyError(
                "images that cannot be scored",
                got=f"{images.dtype} {images.shape}",
                expected=f"uint8 ({', '.join(map(str, (count, *size)))})",
            )
