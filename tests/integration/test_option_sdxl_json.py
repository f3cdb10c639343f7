"""`--sdxl-json`: every result in one file, strict JSON, written by the reporting process."""

from __future__ import annotations

import math
import stat

import pytest


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_document(project, workers):
    assert project.run("--sdxl-json=out/results.json", *workers).ret == pytest.ExitCode.OK
    document = project.json("out/results.json")
    assert document["schema_version"] == 1
    assert document["generator"].startswith("pytest-sdxl ")
    assert document["gate"] == {"passed": True, "summary": "PASSED (1 accuracy, 1 performance)"}
    accuracy, performance = document["results"]
    assert accuracy["test"] == "test_accuracy.py::test_accuracy[DeepCache]"
    assert accuracy["outcome"] == "passed"
    assert accuracy["verdict"]["passed"] is True
    assert accuracy["log_dir"] == "build/logs/DeepCache/AccuracyOnly"
    assert accuracy["environment"] == {"python": "3.11"}
    assert (accuracy["asked"]["engine"], accuracy["engine"]) == ("auto", "onnxruntime")
    assert accuracy["settings_requested"] == accuracy["settings_effective"] == {"min_duration_ms": 600000}
    (clip,) = [metric for metric in accuracy["metrics"] if metric["name"] == "clip_score"]
    assert clip == {
        "name": "clip_score",
        "value": 90.5,
        "unit": "100 x cosine",
        "higher_is_better": True,
        "variant": "shapes",
        "valid_range": [90.0, 91.0],
        "interval": [90.25, 90.75],
    }
    assert accuracy["verdict"]["gate"] == "published (shapes with ranges of its own)"
    assert performance["mode"] == "PerformanceOnly"
    assert performance["verdict"] is None


def test_nan_is_written_as_null_and_named(project):
    project.behave(clip=math.nan)
    assert project.run("--sdxl-json=results.json").ret == pytest.ExitCode.TESTS_FAILED
    document = project.json()
    assert document["gate"]["passed"] is False
    (clip,) = [item for item in document["results"][0]["metrics"] if item["name"] == "clip_score"]
    assert (clip["value"], clip["not_finite"]) == (None, "nan")
    assert document["results"][0]["outcome"] == "failed"


def test_no_results_are_an_empty_list_not_an_old_file(project):
    (project.path / "results.json").write_text("old")
    project.behave(raises="EngineError")
    project.run("--sdxl-json=results.json")
    document = project.json()
    assert (document["results"], document["gate"]["passed"]) == ([], False)


def test_collecting_leaves_the_file_alone(project):
    (project.path / "results.json").write_text("old")
    project.run("--sdxl-json=results.json", "--collect-only")
    assert (project.path / "results.json").read_text() == "old"


def test_file_in_the_environment(project, monkeypatch):
    monkeypatch.setenv("SDXL_JSON", "from-env.json")
    project.run()
    assert len(project.json("from-env.json")["results"]) == 2


def test_a_file_that_cannot_be_written_fails_the_session_and_says_so(project):
    project.pytester.makepyfile(
        test_zz="""
        import pathlib

        def test_meanwhile():
            pathlib.Path("out").write_text("a file where the folder should be")
        """
    )
    result = project.run("--sdxl-json=out/results.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["sdxl: the results could not be written: *--sdxl-json=*"])


def test_nothing_half_written_stays_beside_it(project):
    project.run("--sdxl-json=results.json")
    assert [path.name for path in project.path.glob(".results*")] == []
    assert stat.S_IMODE((project.path / "results.json").stat().st_mode) == 0o644
