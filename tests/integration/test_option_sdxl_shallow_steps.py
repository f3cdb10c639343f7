"""`--sdxl-shallow-steps`: what is in effect is said wherever a figure is, and refused where it cannot be."""

from __future__ import annotations

import pytest

THIRDS = "0,3,6,9,12,15,18"


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_other_steps_are_in_header_result_line_and_json_and_the_gate_does_not_judge_them(project, workers):
    options = ("--sdxl-shallow-steps=2", "--sdxl-json=r.json", *workers)
    result = project.run("-m", "accuracy", *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"sdxl: model-opt=DeepCache, *, deep steps={THIRDS}, samples=512",
            f"*no gate can judge this run: DeepCache on onnxruntime (fp32), deep steps {THIRDS}, model shapes, *",
            "model-opt * engine *",
            "DeepCache 7/20 *",
            f"DeepCache, deep steps {THIRDS} on onnxruntime (fp32), Offline, model shapes, *",
            f" not judged: deep steps {THIRDS}",
        ]
    )
    (record,) = project.json("r.json")["results"]
    assert (record["deep_steps"], record["asked"]["shallow_steps"]) == (THIRDS, 2)


def test_the_variants_own_count_changes_nothing(project):
    result = project.run("-m", "accuracy", "--sdxl-shallow-steps=1")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*deep steps*")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--sdxl-shallow-steps=two",), "ERROR: this is not a whole number"),
        (("--sdxl-shallow-steps=20",), "ERROR: there are not so many shallow steps"),
        (("--sdxl-shallow-steps=1", "--model-opt=NoOpt,DeepCache"), "ERROR: NoOpt has no shallow steps"),
    ],
)
def test_what_cannot_be_is_a_usage_error(project, options, line):
    result = project.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line, "  from:     --sdxl-shallow-steps"])
    assert project.calls() == []


def test_environment_and_ini(project, monkeypatch):
    project.pytester.makeini("[pytest]\nsdxl_shallow_steps = 2\n")
    project.run("-m", "performance").stdout.fnmatch_lines([f"*deep steps={THIRDS}, *"])
    monkeypatch.setenv("SDXL_SHALLOW_STEPS", "9")
    project.run("-m", "performance").stdout.fnmatch_lines(["*deep steps=0,10, *"])
