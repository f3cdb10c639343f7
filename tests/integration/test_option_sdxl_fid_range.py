"""`--sdxl-fid-range`: two limits for the FID, one of which may be left out."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_score_at_the_limit_passes_and_the_other_score_is_not_judged(project, workers):
    result = project.run("-m", "accuracy", "--sdxl-fid-range=,1.5", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "accuracy: [[]NOT JUDGED] CLIP_SCORE: 90.500 | [[]PASSED] FID_SCORE: 1.500 (Valid Range=[[]-inf,  1.500])",
            " gate: custom (FID at most 1.5)",
        ],
        consecutive=True,
    )


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_score_outside_is_red(project, workers):
    result = project.run("-m", "accuracy", "--sdxl-fid-range=,1.25", "--sdxl-json=r.json", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*got: *FID_SCORE 1.5, valid range [[]-inf, 1.25]: 0.25 too high", "*; gate: custom (FID at most 1.25)"]
    )
    (record,) = project.json("r.json")["results"]
    ranges = {metric["name"]: metric["valid_range"] for metric in record["metrics"]}
    assert ranges["fid_score"] == [None, 1.25]
    assert record["asked"]["fid_range"] == ",1.25"


@pytest.mark.parametrize("workers", [(), ("-n2",)])
@pytest.mark.parametrize("value", ["2,1", "nan,1"])
def test_what_is_not_two_limits_is_a_usage_error(project, value, workers):
    result = project.run(f"--sdxl-fid-range={value}", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: a range is not two limits", "*from: *--sdxl-fid-range"])
    assert project.calls() == []


def test_environment(project, monkeypatch):
    monkeypatch.setenv("SDXL_FID_RANGE", ",1.25")
    result = project.run("-m", "accuracy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["sdxl settings from: environment variable SDXL_FID_RANGE"])
