"""The gates: green for a sound run only, and each refusal readable on its own."""

from __future__ import annotations

import dataclasses
import math

import pytest
from fake_measure import RANGES, accuracy_run, performance_run

from pytest_sdxl.gates import assert_accuracy, assert_performance
from sdxl_engine.accuracy.ranges import OFFICIAL
from sdxl_engine.results import Range, Scores, Verdict


def refusal(gate, measurement) -> str:
    with pytest.raises(pytest.fail.Exception) as caught:
        gate(measurement)
    assert not caught.value.pytrace
    return str(caught.value)


def with_loadgen(measurement, **changes):
    return dataclasses.replace(measurement, loadgen=dataclasses.replace(measurement.loadgen, **changes))


def test_sound_runs_pass():
    assert_accuracy(accuracy_run())
    assert_performance(performance_run())


@pytest.mark.parametrize(("clip", "fid"), [(90.0, 1.0), (91.0, 2.0), (90.0, 2.0)])
def test_both_ends_of_a_range_belong_to_it(clip, fid):
    assert_accuracy(accuracy_run(clip, fid))


@pytest.mark.parametrize(
    ("clip", "fid", "said"),
    [
        (89.9, 1.5, "CLIP_SCORE 89.9, valid range [90, 91]: 0.1 too low"),
        (math.nextafter(91.0, 99), 1.5, "too high"),
        (90.5, 2.25, "FID_SCORE 2.25, valid range [1, 2]: 0.25 too high"),
        (90.5, math.nextafter(1.0, 0), "too low"),
        (math.nan, 1.5, "CLIP_SCORE nan, valid range [90, 91]: not a number"),
        (90.5, math.nan, "FID_SCORE nan"),
        (math.inf, 1.5, "infinite"),
    ],
)
def test_a_score_outside_fails_with_score_range_model_variant_and_logs(clip, fid, said):
    text = refusal(assert_accuracy, accuracy_run(clip, fid))
    for part in (
        said,
        "DeepCache on onnxruntime (fp32)",
        "model shapes",
        "metric shapes",
        "512",
        "build/logs/a",
    ):
        assert part in text


def test_the_gate_does_not_take_the_verdict_on_trust():
    lying = accuracy_run(80.0, verdict=Verdict(passed=True, line="accuracy: [PASSED]"))
    assert "CLIP_SCORE 80" in refusal(assert_accuracy, lying)


def test_a_verdict_that_failed_fails_even_where_the_scores_look_right():
    text = refusal(assert_accuracy, accuracy_run(verdict=Verdict(passed=False, line="accuracy: [FAILED] X")))
    assert "accuracy: [FAILED] X" in text


def test_ranges_of_another_count_of_captions_do_not_hold():
    text = refusal(assert_accuracy, accuracy_run(scores=Scores(90.5, 1.5, 511, "shapes")))
    assert "511 captions; the shapes-512 ranges hold for 512" in text


def test_ranges_that_only_call_themselves_official_do_not_hold():
    """Swapped, wider or of fewer captions: whatever the verdict says."""
    told = Verdict(passed=True, line="accuracy: [PASSED]")
    for other in ({"clip": OFFICIAL.fid, "fid": OFFICIAL.clip}, {"fid": Range(0, 90)}, {"count": 4999}):
        ranges = dataclasses.replace(OFFICIAL, **other)
        scores = Scores(ranges.clip.lower, ranges.fid.upper, ranges.count, "mlperf")
        run = accuracy_run(scores=scores, ranges=ranges, verdict=told)
        assert "called official and are not" in refusal(assert_accuracy, run)
    assert_accuracy(accuracy_run(scores=Scores(31.7, 23.5, 5000, "mlperf"), ranges=OFFICIAL, verdict=told))


def test_official_with_4999_captions_does_not_hold():
    told = Verdict(passed=True, line="accuracy: [PASSED]")
    run = accuracy_run(scores=Scores(31.7, 23.5, 4999, "mlperf"), ranges=OFFICIAL, verdict=told)
    assert "4999 of 5000 captions: not an official score" in refusal(assert_accuracy, run)


def test_fid_of_too_few_images_does_not_hold_whatever_the_verdict_says():
    scores = Scores(90.5, 1.5, 512, "shapes", {"fid_rank": "deficient: 512 images for 2048 dimensions"})
    run = accuracy_run(scores=scores, verdict=Verdict(passed=True, line="accuracy: [PASSED]"))
    assert "FID of 512 images for 2048 dimensions judges nothing" in refusal(assert_accuracy, run)


def test_the_gate_and_its_reason_are_in_every_refusal():
    assert "; gate: published (shapes with ranges of its own)" in refusal(assert_accuracy, accuracy_run(80.0))
    verdict = Verdict(passed=None, line="accuracy: -", reason="512 captions", gate="official (checkpoint, NoOpt)")
    text = refusal(assert_accuracy, accuracy_run(ranges=None, verdict=verdict))
    assert "expected: 512 captions; gate: official (checkpoint, NoOpt)" in text


def test_missing_scores_fail():
    assert "no scores" in refusal(assert_accuracy, accuracy_run(scores=None))
    assert "no verdict" in refusal(assert_accuracy, accuracy_run(verdict=None))


@pytest.mark.parametrize("ranges", [None, RANGES])
def test_a_gate_that_cannot_judge_is_not_green(ranges):
    verdict = Verdict(passed=None, line="accuracy: not judged", reason="ranges hold for 512 captions, not 64")
    text = refusal(assert_accuracy, accuracy_run(ranges=ranges, verdict=verdict))
    assert "no gate can judge" in text
    assert "ranges hold for 512 captions, not 64" in text
    assert "--sdxl-samples" in text


def test_random_weights_are_skipped_and_say_why():
    with pytest.raises(pytest.skip.Exception, match="'random' has random weights, so it has no accuracy to gate"):
        assert_accuracy(accuracy_run(model="random"))


@pytest.mark.parametrize(("gate", "run"), [(assert_accuracy, accuracy_run), (assert_performance, performance_run)])
def test_loadgen_errors_fail_both_gates(gate, run):
    text = refusal(gate, with_loadgen(run(), errors=("response lost: id 7",)))
    assert "response lost: id 7" in text
    assert "mlperf_log_detail.txt" in text


@pytest.mark.parametrize(("gate", "run"), [(assert_accuracy, accuracy_run), (assert_performance, performance_run)])
def test_an_invalid_run_fails_both_gates(gate, run):
    assert "the LoadGen run is INVALID" in refusal(gate, with_loadgen(run(), valid=False))


def test_errors_come_before_the_skip_of_random_weights():
    assert "INVALID" in refusal(assert_accuracy, with_loadgen(accuracy_run(model="random"), errors=("x",)))


@pytest.mark.parametrize("speed", [None, math.nan, math.inf, 0.0, -1.0])
def test_a_run_without_a_speed_fails(speed):
    text = refusal(assert_performance, performance_run(samples_per_second=speed))
    assert f"result_samples_per_second: {speed}" in text


def test_a_gate_refuses_a_run_of_the_other_mode():
    assert "sdxl_run('AccuracyOnly')" in refusal(assert_accuracy, performance_run())
    assert "sdxl_run('PerformanceOnly')" in refusal(assert_performance, accuracy_run())
