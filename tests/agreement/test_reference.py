"""The scorer agrees with MLPerf's formulas, evaluated one image at a time in float64, on 256 images of full size.

The weights are random, so this shows the arithmetic of both sides to be the same, whatever the weights are.
"""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Moments, Statistics, frechet_distance

pytestmark = pytest.mark.usefixtures("photographs")

COUNT, BATCH, DIMS = 256, 32, 2048
SEED, OTHER_SEED = 1, 2
PHOTOGRAPHS = [index for index in range(128) if 4 <= index % 16 < 11]


def statistics(features):
    moments = Moments(DIMS)
    for start in range(0, len(features), BATCH):
        moments.update(features[start : start + BATCH])
    return Statistics(moments.mean, moments.covariance)


@pytest.fixture(scope="module")
def scored(official, networks):
    """CLIP scores and features of the images: `clip` and `features` by the scorer, `exact_...` by the reference."""
    from pictures import CAPTIONS, picture
    from reference_score import Reference

    reference, clip_score = Reference(official.clip, official.inception), ClipScore(networks.clip)
    for caption in CAPTIONS:
        reference.text(caption)
    clip, features, exact_clip, exact_features = [], [], [], []
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, COUNT, BATCH):
            images = np.stack([picture(SEED, index) for index in range(start, start + BATCH)])
            captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(start, start + BATCH)]
            one_by_one = (
                pool.map(reference.clip_score, images, captions),
                pool.map(reference.features, images),
            )
            clip.extend(clip_score(images, captions))
            features.extend(networks.features(images))
            exact_clip.extend(one_by_one[0])
            exact_features.extend(one_by_one[1])
    return SimpleNamespace(
        clip=np.array(clip),
        features=np.array(features),
        exact_clip=np.array(exact_clip),
        exact_features=np.array(exact_features),
    )


@pytest.fixture(scope="module")
def others(networks):
    """Features (56, 2048) of another set of images, photographs only, for the true statistics."""
    from pictures import picture

    return np.concatenate([networks.features(picture(OTHER_SEED, index)[None]) for index in PHOTOGRAPHS])


def test_clip_score_of_each_image_and_their_mean(scored):
    difference = np.abs(scored.clip - scored.exact_clip)
    of_mean = abs(scored.clip.mean() - scored.exact_clip.mean())
    print(f"\nCLIP: per image at most {difference.max():.2e}, mean {of_mean:.2e}")
    assert scored.exact_clip.std() > 3, "scores that are all the same would agree with anything"
    assert difference.shape == (COUNT,)
    assert difference.max() <= 1e-4
    assert of_mean <= 1e-5


def test_fid(scored, others):
    """With true statistics of full rank, as val2014.npz has; the covariance scored has rank 255."""
    from reference_score import reference_fid

    true = statistics(others)
    spectrum = np.exp(-np.arange(DIMS) / 200)
    spectrum *= np.trace(true.sigma) / spectrum.sum() / 4
    true = Statistics(true.mu, true.sigma + np.diag(spectrum))
    np.linalg.cholesky(true.sigma)  # raises where the rank is not full
    ours = statistics(scored.features)
    fid = frechet_distance(ours.mu, ours.sigma, true.mu, true.sigma)
    exact = reference_fid(scored.exact_features, true.mu, true.sigma)
    print(f"\nFID: {fid:.8f}, reference {exact:.8f}, relative {abs(fid - exact) / exact:.2e}")
    spread = scored.exact_features.std(axis=0)
    assert np.median(spread) > 0.05 * scored.exact_features.mean(), "features that hardly vary"
    assert exact > 3, "an FID near 0 is the rounding of its large terms"
    assert fid == pytest.approx(exact, rel=1e-4)
