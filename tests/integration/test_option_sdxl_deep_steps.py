"""`--sdxl-deep-steps`: an explicit list of steps, which has no second source beside it."""

from __future__ import annotations

import pytest


def test_a_list_with_a_range_is_the_schedule(project):
    result = project.run("-m", "performance", "--sdxl-deep-steps=0-3,10", "--sdxl-json=r.json")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["DeepCache, deep steps 0-3,10 on onnxruntime (fp32), Offline, *"])
    (record,) = project.json("r.json")["results"]
    assert record["deep_steps"] == "0-3,10"


@pytest.mark.parametrize(
    ("options", "line", "source"),
    [
        (("--sdxl-deep-steps=1,3",), "ERROR: these are not the deep steps of a run", ""),
        (("--sdxl-deep-steps=0,20",), "ERROR: these are not the deep steps of a run", ""),
        (("--sdxl-deep-steps=0,2", "--model-opt=NoOpt"), "ERROR: NoOpt has no shallow steps", ""),
        (
            ("--sdxl-deep-steps=0,2", "--sdxl-shallow-steps=1"),
            "ERROR: the cache schedule is given twice",
            "--sdxl-shallow-steps, ",
        ),
    ],
)
def test_what_cannot_be_is_a_usage_error(project, options, line, source):
    result = project.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line, f"  from:     {source}--sdxl-deep-steps"])
    assert project.calls() == []


def test_environment(project, monkeypatch):
    monkeypatch.setenv("SDXL_DEEP_STEPS", "0,10")
    project.run("-m", "performance").stdout.fnmatch_lines(["*deep steps=0,10, *"])
