"""Under pytest-xdist: results from the workers, performance refused beside other tests, crashes survived."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from sdxl_engine.report import Result


def test_results_of_all_workers_are_reported_by_the_controller(project):
    result = project.run("-n2", "-m", "accuracy", "--model-opt=NoOpt,DeepCache", "--sdxl-json=r.json")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["sdxl gate: PASSED (2 accuracy, 0 performance)"])
    assert {record["model_opt"] for record in project.json("r.json")["results"]} == {"NoOpt", "DeepCache"}


def test_performance_beside_other_workers_is_refused_not_skipped(project):
    result = project.run("-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "performance is not measured beside other tests",
            "  got:      2 pytest-xdist workers",
            "  fix:      run the performance tests apart: pytest -n0 -m performance",
            "sdxl gate: FAILED (0 accuracy, 1 performance)",
        ]
    )
    assert project.calls() == ["measure DeepCache AccuracyOnly"]


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_performance_in_one_process_is_measured(project, workers):
    assert project.run(workers).ret == pytest.ExitCode.OK


def test_listing_is_not_refused(project):
    assert project.run("-n2", "--collect-only").ret == pytest.ExitCode.OK


def test_a_crashed_worker_is_red_and_keeps_the_earlier_results(project):
    project.pytester.makepyfile(
        test_zz="""
        import os

        def test_crash():
            os._exit(1)
        """
    )
    result = project.run("-n1", "-m", "not performance", "--max-worker-restart=0", "--sdxl-json=r.json")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["sdxl gate: FAILED (0 accuracy, 0 performance, 1 crashed)"])
    assert len(project.json("r.json")["results"]) == 1


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_junit_has_the_results(project, workers):
    project.run("--junitxml=junit.xml", *workers)
    cases = ET.parse(project.path / "junit.xml").getroot().iter("testcase")
    properties = {
        case.get("name"): {item.get("name"): item.get("value") for item in case.iter("property")} for case in cases
    }
    accuracy = properties["test_accuracy[DeepCache]"]
    assert accuracy["sdxl_gate"] == "accuracy"
    assert Result.loads(accuracy["sdxl"]).metric("clip_score").value == 90.5
