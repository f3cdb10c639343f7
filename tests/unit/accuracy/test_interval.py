"""Intervals: the derivative they rest on, and how often they hold the expected score."""

import numpy as np
import pytest

from sdxl_engine.accuracy.fid import Statistics, frechet_distance
from sdxl_engine.accuracy.interval import clip_interval, fid_influence, fid_interval

DIMS = 8


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def statistics(generator, dims=DIMS):
    mixing = generator.normal(size=(dims, dims)) / np.sqrt(dims) + np.eye(dims)
    return Statistics(generator.normal(size=dims), mixing @ mixing.T)


def draws(generator, n, truth):
    """Images like the true ones, but for a shift and a stretch."""
    factor = np.linalg.cholesky(truth.sigma) * np.linspace(0.8, 1.3, len(truth.mu))
    return (generator.normal(size=(n, len(truth.mu))) @ factor.T + truth.mu + 0.3).astype(np.float32)


def test_clip_interval_is_that_of_a_mean(generator):
    scores = generator.normal(31.7, 3.0, 5000)
    lower, upper = clip_interval(scores)
    half = 1.96 * scores.std() / np.sqrt(5000)
    assert lower == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert upper == pytest.approx(scores.mean() + half, abs=0.1 * half)
    assert clip_interval(scores) == (lower, upper), "the same scores have the same interval"


def test_influence_is_the_derivative_in_the_weight_of_an_image(generator):
    truth = statistics(generator)
    features = draws(generator, 40, truth)
    fid, influence = fid_influence(features, truth)
    exact = features.astype(np.float64)
    mu, sigma = exact.mean(axis=0), np.cov(exact, rowvar=False)
    assert fid == pytest.approx(frechet_distance(mu, sigma, truth.mu, truth.sigma), rel=1e-10)

    def moved(step, image):
        away = image - mu
        return frechet_distance(mu + step * away, sigma + step * (np.outer(away, away) - sigma), truth.mu, truth.sigma)

    step = 1e-5
    numeric = [(moved(step, image) - moved(-step, image)) / (2 * step) for image in exact]
    np.testing.assert_allclose(influence, numeric, rtol=1e-5, atol=1e-6)


def test_influence_holds_where_the_statistics_lack_full_rank(generator):
    truth = statistics(generator)
    flat = truth.sigma.copy()
    flat[0], flat[:, 0] = 0, 0
    features = draws(generator, 40, truth)
    fid, influence = fid_influence(features, Statistics(truth.mu, flat))
    exact = features.astype(np.float64)
    assert fid == pytest.approx(
        frechet_distance(exact.mean(axis=0), np.cov(exact, rowvar=False), truth.mu, flat), rel=1e-6
    )
    assert np.isfinite(influence).all()


def coverage(generator, runs, n, dims):
    """How many of many runs' intervals hold the mean FID of them all, and how wide they are beside its deviation."""
    truth = statistics(generator, dims)
    fids, ends = [], []
    for _ in range(runs):
        features = draws(generator, n, truth)
        exact = features.astype(np.float64)
        fids.append(frechet_distance(exact.mean(axis=0), np.cov(exact, rowvar=False), truth.mu, truth.sigma))
        ends.append(fid_interval(features, truth))
    lower, upper = np.array(ends).T
    held = ((lower <= np.mean(fids)) & (np.mean(fids) <= upper)).mean()
    return held, (upper - lower).mean() / (2 * 1.96 * np.std(fids))


def test_fid_interval_holds_the_expected_fid_in_95_of_100_runs(generator):
    held, width = coverage(generator, 300, 200, DIMS)
    assert 0.91 <= held <= 0.99
    assert 0.9 <= width <= 1.25


def test_fid_interval_of_few_images_is_too_wide_and_not_too_narrow(generator):
    """As many images for each dimension as the benchmark has, 5000 for 2048."""
    held, width = coverage(generator, 200, 78, 32)
    assert held >= 0.93
    assert 1 <= width <= 1.41


def test_resampling_the_images_themselves_would_miss_the_score(generator):
    """Why the expansion is resampled: FID of resamples lies beside FID."""
    truth = statistics(generator)
    features = draws(generator, 40, truth)
    fid, _ = fid_influence(features, truth)
    resampled = [fid_influence(features[generator.integers(40, size=40)], truth)[0] for _ in range(200)]
    assert np.percentile(resampled, 2.5) > fid


def broken(features):
    features[3, 2] = np.nan
    return features


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda features: features[:DIMS], id="no more images than dimensions"),
        pytest.param(lambda features: features * np.eye(DIMS)[0].astype(np.float32), id="dead features"),
        pytest.param(broken, id="NaN"),
    ],
)
def test_no_fid_interval_where_there_is_no_derivative(generator, change):
    truth = statistics(generator)
    assert fid_interval(change(draws(generator, 40, truth)), truth) is None


@pytest.mark.parametrize("scores", [[31.7], [31.7, np.nan], []])
def test_no_clip_interval_of_one_score_or_a_broken_one(scores):
    assert clip_interval(np.array(scores)) is None
