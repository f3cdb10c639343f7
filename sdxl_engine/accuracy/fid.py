"""Fréchet Inception distance: features of images, their moments, and the distance between two Gaussians.

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, "GANs Trained by a Two Time-Scale Update Rule Converge
to a Local Nash Equilibrium", 2017, as MLPerf's `text_to_image/tools/fid/fid_score.py` and `inception.py`
compute it: bilinear resize without antialias, float32 features, float64 statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.errors import AccuracyError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Statistics:
    """Mean `mu` (D,) and covariance `sigma` (D, D) of the features of a set of images, float64."""

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]


class Moments:
    """Running mean and centred second moment of feature vectors.

    Sums of squares would lose digits where the mean is large beside the deviation; centred moments do not.

    Attributes:
        n: How many vectors.
        mean: (dims,) float64, their mean.
        m2: (dims, dims) float64, the sum of outer products of the vectors' deviations from their mean.

    Args:
        dims: Length of the vectors.

    Source: Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983.
    """

    def __init__(self, dims: int) -> None:
        self.n = 0
        self.mean: NDArray[np.float64] = np.zeros(dims)
        self.m2: NDArray[np.float64] = np.zeros((dims, dims))

    def update(self, batch: NDArray[np.floating]) -> None:
        """Take in a batch (B, D) of feature vectors; a NaN or infinity makes the moments NaN for good."""
        if not len(batch):
            return
        vectors = batch.astype(np.float64)
        # Infinite features become NaN in the difference, which is meant: the gate fails on it.
        with np.errstate(invalid="ignore"):
            mean = vectors.mean(axis=0)
            centred = vectors - mean
            self._merge(len(vectors), mean, centred.T @ centred)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(dims, dims) float64, divided by n - 1.

        Raises:
            AccuracyError: there are fewer than two vectors.
        """
        if self.n < 2:
            raise AccuracyError("FID needs a covariance", got=f"{self.n} images", expected="2 images or more")
        return self.m2 / (self.n - 1)

    def _merge(self, count: int, mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        n = self.n + count
        with np.errstate(invalid="ignore"):
            delta = mean - self.mean
            self.m2 = self.m2 + m2 + np.outer(delta, delta) * (self.n * count / n)
            self.mean = self.mean + delta * (count / n)
        self.n = n


def convolution_layout(device: str) -> torch.memory_format:
    """How the convolutions of a feature network take images and weights.

    On a CPU they take half the time with the channels of a pixel side by side; on a GPU, in float32, planes are faster
    (Inception, 32 images, one H200, torch 2.11: 17.1 ms against 21.4).
    """
    import torch

    return torch.channels_last if torch.device(device).type == "cpu" else torch.contiguous_format


def network_input(images: NDArray[np.uint8], image_size: int, device: str = "cpu") -> torch.Tensor:
    """Images as a feature network takes them.

    Args:
        images: (B, H, W, 3) uint8 RGB, 0 to 255.
        image_size: The side S that the network takes, pixels.
        device: Where the images are resized.

    Returns:
        (B, 3, S, S) float32 in [-1, 1], on `device`.

    Source: `inception.py` of the reference: [0, 1], resize, then 2x - 1. The resize has no antialias; with it
    the features, and so the score, are other ones.
    """
    import torch
    import torch.nn.functional as F

    height, width = images.shape[1:3]
    size = (image_size, image_size)
    # A 1024x1024 image is 12 MB in float32: one at a time, in the same memory, channels last as it comes.
    unit = torch.empty((1, 3, height, width), memory_format=torch.channels_last, device=device)
    resized = torch.empty((len(images), 3, *size), memory_format=convolution_layout(device), device=device)
    for image, row in zip(np.ascontiguousarray(images), resized, strict=True):
        torch.div(torch.from_numpy(image).to(device).permute(2, 0, 1), 255, out=unit[0])
        row.copy_(F.interpolate(unit, size=size, mode="bilinear", align_corners=False)[0])
    return resized.mul_(2).sub_(1)


def frechet_distance(
    mu1: NDArray[np.float64],
    sigma1: NDArray[np.float64],
    mu2: NDArray[np.float64],
    sigma2: NDArray[np.float64],
) -> float:
    """Squared Fréchet distance between two Gaussians.

    |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 sqrt(sigma1 sigma2)).

    sigma1 sigma2 has the eigenvalues of the symmetric positive semidefinite sqrt(sigma1) sigma2 sqrt(sigma1),
    so the trace of its root is the sum of their roots. Unlike a matrix square root of the product, this is
    sound for covariances that lack full rank (fewer images than dimensions) and needs neither an epsilon on
    the diagonal nor the dropping of imaginary parts.

    Args:
        mu1: (D,) float64.
        sigma1: (D, D) float64, symmetric positive semidefinite.
        mu2: (D,) float64.
        sigma2: (D, D) float64, symmetric positive semidefinite.

    Returns:
        The distance, 0 or more up to rounding; NaN if any input is NaN or infinite.
    """
    if not all(np.isfinite(part).all() for part in (mu1, sigma1, mu2, sigma2)):
        return float("nan")
    values, vectors = np.linalg.eigh(sigma1)
    # Rounding leaves zero eigenvalues slightly negative.
    root1 = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = root1 @ sigma2 @ root1
    root_trace = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)).sum()
    difference = mu1 - mu2
    return float(difference @ difference + np.trace(sigma1) + np.trace(sigma2) - 2 * root_trace)
