"""FID: distance, moments, and the resize that decides the features."""

import numpy as np
import pytest
import scipy.linalg

from sdxl_engine.accuracy.fid import Moments, frechet_distance, network_input
from sdxl_engine.errors import AccuracyError


def plain_distance(mu1, sigma1, mu2, sigma2):
    """The reference's formula, with scipy's matrix square root."""
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root.real)


def draws(seed, n, dims=16, scale=1.0):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dims, dims))
    return generator.normal(size=(n, dims)) @ mixing * scale + generator.normal(size=dims)


def statistics(vectors):
    return vectors.mean(axis=0), np.cov(vectors, rowvar=False)


def moments(vectors, batch=7):
    running = Moments(vectors.shape[1])
    for start in range(0, len(vectors), batch):
        running.update(vectors[start : start + batch])
    return running


def test_distance_agrees_with_the_matrix_square_root():
    one, two = statistics(draws(0, 200)), statistics(draws(1, 300, scale=0.7))
    assert frechet_distance(*one, *two) == pytest.approx(plain_distance(*one, *two), rel=1e-9)


def test_distance_of_a_rank_deficient_covariance():
    one, two = statistics(draws(0, 9)), statistics(draws(1, 300))
    assert np.linalg.matrix_rank(one[1]) == 8
    with np.errstate(all="ignore"):
        expected = plain_distance(*one, *two)
    assert frechet_distance(*one, *two) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(*two, *one) == pytest.approx(expected, rel=1e-6)


def test_distance_of_commuting_covariances_has_a_closed_form():
    spread1, spread2 = np.array([4.0, 9.0, 0.0]), np.array([1.0, 0.0, 25.0])
    mu1, mu2 = np.zeros(3), np.array([1.0, 2.0, 2.0])
    expected = 9 + ((np.sqrt(spread1) - np.sqrt(spread2)) ** 2).sum()
    assert frechet_distance(mu1, np.diag(spread1), mu2, np.diag(spread2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [9, 200])
def test_distance_of_identical_statistics_is_zero(n):
    one = statistics(draws(0, n))
    assert frechet_distance(*one, *one) == pytest.approx(0, abs=1e-6 * np.trace(one[1]))


def test_distance_is_nan_where_an_input_is():
    mu, sigma = statistics(draws(0, 40))
    broken = sigma.copy()
    broken[2, 3] = np.nan
    assert np.isnan(frechet_distance(mu, broken, mu, sigma))
    assert np.isnan(frechet_distance(mu, sigma, np.full_like(mu, np.inf), sigma))


def test_moments_agree_with_numpy():
    vectors = draws(2, 100) + 1000
    running = moments(vectors)
    assert running.n == 100
    np.testing.assert_allclose(running.mean, vectors.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(running.covariance, np.cov(vectors, rowvar=False), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_broken_feature_spoils_the_moments_for_good(bad):
    vectors = draws(0, 30)
    vectors[3, 0] = bad
    running = moments(vectors)
    assert np.isnan(running.covariance).any()
    assert np.isnan(frechet_distance(running.mean, running.covariance, *statistics(draws(0, 30))))


def test_one_vector_has_no_covariance():
    with pytest.raises(AccuracyError, match="needs a covariance"):
        _ = moments(draws(0, 1)).covariance


def test_resize_is_that_of_pytorch_fid():
    """Its InceptionV3 itself, with an identity for a block: only resize and scaling are left."""
    import torch
    import torch.nn.functional as F
    from pytorch_fid.inception import InceptionV3
    from torch import nn

    images = np.random.default_rng(0).integers(0, 256, (2, 512, 512, 3), dtype=np.uint8)
    reference = InceptionV3.__new__(InceptionV3)
    nn.Module.__init__(reference)
    reference.resize_input = reference.normalize_input = True
    reference.output_blocks, reference.last_needed_block = [0], 0
    reference.blocks = nn.ModuleList([nn.Identity()])
    unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    ours = network_input(images, 299)
    torch.testing.assert_close(ours, reference(unit)[0], rtol=0, atol=0)
    smooth = 2 * F.interpolate(unit, size=(299, 299), mode="bilinear", align_corners=False, antialias=True) - 1
    assert (ours - smooth).abs().mean() > 0.05


@pytest.mark.parametrize("shape", [(300, 200), (64, 64), (20, 24)])
def test_resize_image_by_image_is_that_of_the_batch(shape):
    import torch
    import torch.nn.functional as F

    images = np.random.default_rng(1).integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    whole = 2 * F.interpolate(unit, size=(64, 64), mode="bilinear", align_corners=False) - 1
    torch.testing.assert_close(network_input(images, 64), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(network_input(images[::2, ::-1], 64), whole[::2].flip(2), rtol=0, atol=1e-5)
