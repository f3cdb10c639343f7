import math

import numpy as np
import pytest
from scored_runs import HEADER, METRIC, picture, record

from sdxl_engine.accuracy.compare import Pair, compare
from sdxl_engine.errors import AccuracyError

CLIP = {10: 99.0, 11: 98.0, 12: 97.0, 13: 96.0}


def changed(**metric):
    return HEADER | {"metric": METRIC | metric}


def test_pairs_are_those_of_both_in_the_order_of_the_run():
    found = compare(record({13: 95.0, 7: 50.0, 11: 98.5}), record(CLIP))
    assert found.pairs == (Pair(13, 95.0, 96.0), Pair(11, 98.5, 98.0))
    assert [pair.delta for pair in found.pairs] == [-1.0, 0.5]
    assert (found.only_run, found.only_baseline) == (1, 2)
    assert (found.run_mean, found.baseline_mean) == (96.75, 97.0)
    assert (found.clip.mean, found.clip.lowest, found.clip.highest) == (-0.25, -1.0, 0.5)


def test_scores_that_differ_by_a_stored_baselines_rounding_are_equal():
    found = compare(record({key: score + 5e-5 for key, score in CLIP.items()}), record(CLIP))
    assert (found.clip.sign.equal, found.loss.kind) == (4, "none")


def test_a_run_against_itself_has_the_same_images_and_no_loss():
    found = compare(record(CLIP), record(CLIP))
    assert (found.hashed, found.identical, found.moved) == (4, 4, 0)
    assert (found.clip.sign.equal, found.clip.sign.p, found.loss.kind) == (4, 1.0, "none")
    assert found.worst(8) == []


def test_swapped_images_are_known_by_their_digests():
    images = {key: picture(key) for key in CLIP}
    swapped = {10: images[11], 11: images[10], 12: picture(0), 13: images[13]}
    found = compare(record(CLIP, swapped), record(CLIP, images))
    assert (found.hashed, found.identical, found.moved) == (4, 1, 2)


def test_the_worst_come_first_and_none_that_did_not_lose():
    scores = dict(zip(CLIP, (98.0, 99.0, math.nan, 90.0), strict=True))
    found = compare(record(scores), record(CLIP))
    assert [pair.id for pair in found.worst(8)] == [12, 13, 10]
    assert [pair.id for pair in found.worst(2)] == [12, 13]


def test_a_score_that_is_no_number_is_in_no_statistic_but_counted():
    found = compare(record(CLIP | {12: math.nan}), record(CLIP | {13: math.nan}))
    assert (found.unscored, found.clip.count, found.clip.mean) == (1, 2, 0.0)
    assert [pair.id for pair in found.worst(8)] == [12]


@pytest.mark.parametrize(
    ("header", "name", "got"),
    [
        (changed(variant="mlperf", clip_resize="224"), "variant", "mlperf"),
        (changed(clip_weights_sha256="bb"), "clip_weights_sha256", "bb"),
        (changed(clip_model="ViT-B-32"), "clip_model", "ViT-B-32"),
        ({"metric": {"variant": "shapes"}}, "clip_resize", "not said"),
    ],
)
def test_scores_of_different_metrics_do_not_compare(header, name, got):
    with pytest.raises(AccuracyError, match=f"do not compare: {name} of the metric differs") as caught:
        compare(record(CLIP, header=header), record(CLIP))
    assert caught.value.parts["got"] == f"{got} in the run"


def test_what_only_fid_depends_on_does_not_matter():
    found = compare(record(CLIP, header=changed(fid_weights_sha256="g", pillow="12")), record(CLIP))
    assert found.clip.count == 4


def test_other_captions_under_the_same_ids_do_not_compare():
    def header(count, digest):
        return HEADER | {"run": {"captions": count, "captions_sha256": digest}}

    assert compare(record(CLIP, header=header(128, "dd")), record(CLIP)).clip.count == 4
    with pytest.raises(AccuracyError, match="they are of other captions") as caught:
        compare(record(CLIP, header=header(512, "dd")), record(CLIP))
    assert caught.value.parts["got"] == "captions_sha256 dd in the run"


@pytest.mark.parametrize("other", [{20: 99.0}, dict.fromkeys(CLIP, np.nan)], ids=["other captions", "no scores"])
def test_nothing_in_common_is_an_error(other):
    with pytest.raises(AccuracyError, match="cannot be compared"):
        compare(record(other), record(CLIP))
