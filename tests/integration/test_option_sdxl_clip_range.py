"""`--sdxl-clip-range`: two limits for the CLIP score, one of which may be left out."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_score_at_the_limit_passes_and_the_other_score_is_not_judged(project, workers):
    result = project.run("-m", "accuracy", "--sdxl-clip-range=90.5,90.5", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "accuracy: *PASSED] CLIP_SCORE: 90.500 (Valid Range=[[]90.500,  90.500]) | [[]NOT JUDGED] FID_SCORE: 1.500",
            " gate: custom (CLIP 90.5 to 90.5)",
        ],
        consecutive=True,
    )


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_score_outside_is_red(project, workers):
    result = project.run("-m", "accuracy", "--sdxl-clip-range=90.75,", "--sdxl-json=r.json", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*got: *CLIP_SCORE 90.5, valid range [[]90.75, inf]: 0.25 too low", "*; gate: custom (CLIP at least 90.75)"]
    )
    (record,) = project.json("r.json")["results"]
    ranges = {metric["name"]: metric["valid_range"] for metric in record["metrics"]}
    assert ranges["clip_score"] == [90.75, None]
    assert record["asked"]["clip_range"] == "90.75,"


@pytest.mark.parametrize("workers", [(), ("-n2",)])
@pytest.mark.parametrize("value", ["2,1", "nan,1"])
def test_what_is_not_two_limits_is_a_usage_error(project, value, workers):
    result = project.run(f"--sdxl-clip-range={value}", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: a range is not two limits", "*from: *--sdxl-clip-range"])
    assert project.calls() == []


def test_environment(project, monkeypatch):
    monkeypatch.setenv("SDXL_CLIP_RANGE", "90.75,")
    result = project.run("-m", "accuracy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["sdxl settings from: environment variable SDXL_CLIP_RANGE"])
