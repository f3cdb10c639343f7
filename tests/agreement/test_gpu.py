"""The scorer on a GPU, in the process that a run gives it, agrees with MLPerf's formulas in float64 on the CPU.

The weights are random and no image is a photograph, so that neither weights nor scikit-image are needed.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from sdxl_engine.accuracy.fid import Moments, frechet_distance

pytestmark = pytest.mark.gpu

COUNT, OTHERS, BLOCK, DIMS = 64, 16, 32, 2048
SEED, OTHER_SEED = 1, 2
DRAWN = [index for index in range(128) if not 4 <= index % 16 < 11]
"""Pictures that are not photographs."""


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """The name of the GPU."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    if torch.version.cuda is None:
        pytest.skip(f"needs PyTorch for CUDA, and torch {torch.__version__} is built without it")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: torch.cuda.is_available() is False")
    return torch.cuda.get_device_name()


@pytest.fixture(scope="module")
def scorer(official):
    from sdxl_engine.accuracy.official import load_official_metrics
    from sdxl_engine.accuracy.process_scorer import ProcessScorer

    with closing(ProcessScorer(partial(load_official_metrics, official.folder, official.files, "cuda"))) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def scored(official, scorer):
    """`clip` and `features` by the scorer, `exact_...` by the reference; exact features `true` of other images."""
    from pictures import CAPTIONS, picture
    from reference_score import Reference

    images = np.stack([picture(SEED, index) for index in DRAWN[:COUNT]])
    others = [picture(OTHER_SEED, index) for index in DRAWN[:OTHERS]]
    captions = [CAPTIONS[row % len(CAPTIONS)] for row in range(COUNT)]
    reference = Reference(official.clip, official.inception)
    for caption in CAPTIONS:
        reference.text(caption)
    blocks = [slice(start, start + BLOCK) for start in range(0, COUNT, BLOCK)]
    clip, features = zip(*(scorer.score(images[block], captions[block]) for block in blocks), strict=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        exact_features = pool.map(reference.features, [*images, *others])
        exact_clip = pool.map(reference.clip_score, images, captions)
        exact_features, exact_clip = np.array(list(exact_features)), np.array(list(exact_clip))
    return SimpleNamespace(
        images=images,
        captions=captions,
        clip=np.concatenate(clip),
        features=np.concatenate(features),
        exact_clip=exact_clip,
        exact_features=exact_features[:COUNT],
        true=exact_features[COUNT:],
    )


def moments(features):
    found = Moments(DIMS)
    found.update(features)
    return found.mean, found.covariance


def test_clip_score_of_each_image(scored):
    difference = np.abs(scored.clip - scored.exact_clip)
    print(f"\nCLIP: per image at most {difference.max():.2e}")
    assert scored.exact_clip.std() > 3, "scores that are all the same would agree with anything"
    assert difference.shape == (COUNT,)
    assert difference.max() <= 1e-4


def test_features_and_fid(scored):
    difference = np.abs(scored.features - scored.exact_features).max() / np.abs(scored.exact_features).max()
    fid, exact = (
        frechet_distance(*moments(features), *moments(scored.true))
        for features in (scored.features, scored.exact_features)
    )
    relative = abs(fid - exact) / exact
    print(
        f"\nfeatures: at most {difference:.2e} of the largest; FID {fid:.8f}, exact {exact:.8f}, {relative:.2e} of it"
    )
    assert exact > 3, "an FID near 0 is the rounding of its large terms"
    assert difference <= 1e-4
    assert fid == pytest.approx(exact, rel=1e-4)


def test_tf32_of_this_process_and_the_scorer_do_not_meet(scorer, scored):
    """Neither does TF32 here change a score, nor the scoring what is computed here with TF32 meanwhile."""
    import torch

    matrix = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)).cuda()
    in_float32 = matrix @ matrix
    torch.set_float32_matmul_precision("high")
    try:
        in_tf32 = matrix @ matrix
        assert not torch.equal(in_tf32, in_float32)
        with ThreadPoolExecutor(1) as pool:
            scoring = pool.submit(scorer.score, scored.images[:BLOCK], scored.captions[:BLOCK])
            rounds = 0
            while not scoring.done():
                assert torch.equal(matrix @ matrix, in_tf32)
                rounds += 1
        assert rounds > 10
    finally:
        torch.set_float32_matmul_precision("highest")
    clip, features = scoring.result()
    np.testing.assert_array_equal(clip, scored.clip[:BLOCK])
    np.testing.assert_array_equal(features, scored.features[:BLOCK])


def test_auto_is_the_gpu_and_the_identity_names_it(gpu):
    from sdxl_engine.accuracy.placement import open_scorer
    from sdxl_engine.models.source import model_of
    from sdxl_engine.settings import RunSettings

    images = np.random.default_rng(0).integers(0, 256, (BLOCK, 128, 128, 3), dtype=np.uint8)
    captions = ["a small red circle"] * BLOCK
    found = {}
    for device in ("auto", "cpu"):
        with open_scorer(model_of(RunSettings(model="shapes")), "auto", device) as scorer:
            found[device] = scorer.metric.identity, scorer.score(images, captions)
    (identity, ours), (on_cpu, theirs) = found["auto"], found["cpu"]
    assert identity == on_cpu | {"device": gpu}
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-4 * np.abs(theirs[1]).max())
