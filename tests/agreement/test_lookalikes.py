"""The tolerances of test_reference.py are tight enough: a scorer that does one thing otherwise lies outside them."""

import numpy as np
import pytest
from lookalikes import OF_CLIP, OF_FID, apply

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Moments, frechet_distance

pytestmark = pytest.mark.usefixtures("photographs")

COUNT = 8
DIMS = 256
"""FID is here of the first 256 of the 2048 features: the eigenvalues of a covariance of all would take the most time,
and of eight images it has rank 7 either way."""

SEED, OTHER_SEED = 3, 4


@pytest.fixture(scope="module")
def images():
    """One rendered, five photographic, one of noise, one extreme."""
    from pictures import picture

    return np.stack([picture(SEED, index) for index in (0, 5, 6, 7, 9, 20, 28, 30)])


@pytest.fixture(scope="module")
def captions():
    from pictures import CAPTIONS

    return CAPTIONS[-COUNT:]


@pytest.fixture(scope="module")
def clip(networks, images, captions):
    return ClipScore(networks.clip)(images, captions)


@pytest.fixture(scope="module")
def true(networks):
    from pictures import picture

    return moments_of(networks, np.stack([picture(OTHER_SEED, index) for index in range(4, 12)]))


def moments_of(networks, images):
    moments = Moments(DIMS)
    moments.update(np.ascontiguousarray(networks.features(images)[:, :DIMS]))
    return moments


def fid(networks, images, true):
    moments = moments_of(networks, images)
    return frechet_distance(moments.mean, moments.covariance, true.mean, true.covariance)


@pytest.fixture(scope="module")
def distance(networks, images, true):
    return fid(networks, images, true)


@pytest.mark.parametrize("name", OF_CLIP)
def test_clip(networks, images, captions, clip, name):
    difference = np.abs(ClipScore(apply(networks, name).clip)(images, captions) - clip)
    print(f"\n{name}: per image at most {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() > 1e-3, "ten times the tolerance for an image"


@pytest.mark.parametrize("name", OF_FID)
def test_fid(networks, images, true, distance, name):
    if "torch-fidelity" in name:
        pytest.importorskip("torch_fidelity", reason="needs torch-fidelity")
    other = fid(apply(networks, name), images, true)
    print(f"\n{name}: FID {other:.6f} in place of {distance:.6f}, relative {abs(other - distance) / distance:.2e}")
    assert other != pytest.approx(distance, rel=1e-3), "ten times the tolerance"
