"""Scores from blocks: nothing but the blocks counts, and what cannot be a whole run is refused."""

import math

import numpy as np
import pytest

from sdxl_engine.accuracy.fid import Statistics
from sdxl_engine.accuracy.records import Block
from sdxl_engine.accuracy.tally import Tally
from sdxl_engine.errors import AccuracyError

IDS = tuple(range(100, 140))
STATISTICS = Statistics(np.zeros(8), np.eye(8))


def block(ids, dims=8):
    generator = [np.random.default_rng(key) for key in ids]
    return Block(
        tuple(ids),
        tuple(f"{key:064x}" for key in ids),
        np.array([draws.normal(30, 2) for draws in generator]),
        np.stack([draws.normal(size=dims).astype(np.float32) for draws in generator]),
    )


def tally(*parts):
    collected = Tally(IDS)
    for part in parts:
        collected.add(block(part))
    return collected


def scores(collected):
    return collected.scores(STATISTICS, "shapes", {"weights": "abc"})


def test_scores_are_those_of_a_plain_evaluation():
    whole = block(IDS)
    found = scores(tally(IDS))
    assert found.clip == pytest.approx(whole.clip.mean(), rel=1e-14)
    features = whole.features.astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(features, rowvar=False))
    mean = features.mean(axis=0)
    expected = mean @ mean + eigenvalues.sum() + 8 - 2 * np.sqrt(eigenvalues).sum()
    assert found.fid == pytest.approx(expected, rel=1e-10)
    assert (found.count, found.variant) == (40, "shapes")


def test_order_and_blocks_do_not_show_in_a_single_bit():
    one = scores(tally(IDS))
    other = scores(tally(IDS[33:], IDS[:5][::-1], IDS[5:33]))
    assert (one.clip.hex(), one.fid.hex()) == (other.clip.hex(), other.fid.hex())


@pytest.mark.parametrize(("count", "rank"), [(8, "deficient"), (9, "full")])
def test_fid_of_too_few_images_is_flagged(count, rank):
    few = Tally(IDS[:count])
    few.add(block(IDS[:count]))
    found = few.scores(STATISTICS, "shapes", {"weights": "abc"})
    assert math.isfinite(found.fid)
    assert found.identity == {"weights": "abc", "fid_rank": f"{rank}: {count} images for 8 dimensions"}


def test_missing_ids_are_counted_and_named():
    with pytest.raises(AccuracyError, match="not complete") as caught:
        scores(tally(IDS[:2]))
    assert caught.value.parts["got"] == "no image for 38 of 40 ids: 102, 103, 104, 105, 106, 107, 108, 109, ..."


@pytest.mark.parametrize(
    ("ids", "words", "got"),
    [
        ([105, 7], "not in this run", "7"),
        ([105, 105], "second image", "105"),
        ([105, 100], "second image", "100"),
    ],
)
def test_wrong_ids_are_named_and_nothing_of_their_block_is_taken_in(ids, words, got):
    collected = tally([100])
    with pytest.raises(AccuracyError, match=words) as caught:
        collected.add(block(ids))
    assert caught.value.parts["got"] == got
    assert list(collected.per_id) == [100]


def test_features_of_two_networks_are_refused():
    collected = tally([100])
    with pytest.raises(AccuracyError, match="two networks"):
        collected.add(block([101], dims=9))
    with pytest.raises(AccuracyError, match="other features"):
        tally(IDS).scores(Statistics(np.zeros(9), np.eye(9)), "shapes", {})


def test_nothing_to_score_is_refused():
    with pytest.raises(AccuracyError, match="nothing to score"):
        Tally([])
