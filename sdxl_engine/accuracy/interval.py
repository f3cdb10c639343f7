"""How far CLIP score and FID would move with other images of the same run: 95 % bootstrap intervals.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Davison and Hinkley, "Bootstrap Methods and their
Application", 1997. CLIP score is a mean, so its images are resampled as they are. FID is not: a resample holds
images twice, so its covariance has fewer directions and its FID is larger by more than the interval is wide, and each
of 2000 resamples would cost an eigenvalue decomposition. So FID's first-order expansion is resampled in its stead: the
mean of each image's influence, as in Jaeckel's and Efron's infinitesimal jackknife.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.results import INTERVAL_PERCENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sdxl_engine.accuracy.fid import Statistics

RESAMPLES = 2000
SEED = 0
_AT_ONCE = 100
"""Resamples drawn together: 4 MB of indices for 5000 images."""


def clip_interval(clip: NDArray[np.float64]) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean.

    Args:
        clip: (N,) float64, the CLIP score of each image, in the order of the captions.

    Returns:
        Its ends; None for fewer than two images or a score that is not finite.
    """
    if len(clip) < 2 or not np.isfinite(clip).all():
        return None
    return _ends(clip)


def fid_interval(features: NDArray[np.float32], statistics: Statistics) -> tuple[float, float] | None:
    """Interval of FID: of what this count of images gives on average, whose upward bias it shares.

    Args:
        features: (N, D) float32, in the order of the captions.
        statistics: Of the true images.

    Returns:
        Its ends; None where `fid_influence` has none.
    """
    expansion = fid_influence(features, statistics)
    if expansion is None:
        return None
    fid, influence = expansion
    lower, upper = _ends(influence - influence.mean())
    return fid + lower, fid + upper


def fid_influence(features: NDArray[np.float32], statistics: Statistics) -> tuple[float, NDArray[np.float64]] | None:
    """FID and its derivative in the weight of each image.

    With mu and S the mean and covariance of the features f, and mu2 and S2 the statistics, that is

        2 (mu - mu2).(f - mu) + (f - mu)'(1 - T)(f - mu) - tr((1 - T) S),

    where T is the optimal transport map from N(0, S) to N(0, S2): the derivative of tr sqrt(S S2) in S is T / 2.
    With S = L L' and the eigenvectors V and eigenvalues w of L' S2 L, T is L'^-1 V sqrt(w) V' L^-1, which takes one
    eigenvalue decomposition and holds for a singular S2 too.

    Args:
        features: (N, D) float32.
        statistics: Of the true images.

    Returns:
        FID, and (N,) float64; None where the derivative does not exist: no more images than dimensions or another
        singular covariance, or features that are not finite.
    """
    count, dims = features.shape
    if count <= dims or not np.isfinite(features).all():
        return None
    centred = features.astype(np.float64)
    mu = centred.mean(axis=0)
    centred -= mu
    covariance = centred.T @ centred / (count - 1)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    values, vectors = np.linalg.eigh(factor.T @ statistics.sigma @ factor)
    # Rounding leaves zero eigenvalues slightly negative.
    roots = np.sqrt(values.clip(min=0))
    whitened = np.linalg.solve(factor.T, vectors).T @ centred.T
    shift = mu - statistics.mu
    spread = (centred**2).sum(axis=1) - roots @ whitened**2
    influence = 2 * centred @ shift + spread - (np.trace(covariance) - roots.sum())
    fid = shift @ shift + np.trace(covariance) + np.trace(statistics.sigma) - 2 * roots.sum()
    return float(fid), influence


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle `INTERVAL_PERCENT` of the means of resamples; the same for the same values in the same order."""
    generator = np.random.default_rng(SEED)
    means = [
        values[generator.integers(len(values), size=(_AT_ONCE, len(values)))].mean(axis=1)
        for _ in range(RESAMPLES // _AT_ONCE)
    ]
    lower, upper = np.percentile(np.concatenate(means), [50 - INTERVAL_PERCENT / 2, 50 + INTERVAL_PERCENT / 2])
    return float(lower), float(upper)
