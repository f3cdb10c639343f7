"""`--model-opt`: which variants are measured."""

from __future__ import annotations

import pytest


def test_default_is_deepcache(project):
    project.run().assert_outcomes(passed=2)
    assert project.calls() == ["measure DeepCache AccuracyOnly", "measure DeepCache PerformanceOnly"]


def test_several_variants_are_several_tests_with_stable_ids(project):
    result = project.run("--model-opt=NoOpt,DeepCache", "--model-opt=DeepCachePruned", "-v", "-m", "accuracy")
    result.assert_outcomes(passed=3, deselected=3)
    result.stdout.fnmatch_lines(
        [f"test_accuracy.py::test_accuracy[[]{name}] PASSED*" for name in ("NoOpt", "DeepCache", "DeepCachePruned")]
    )


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_unknown_variant_is_a_usage_error_with_the_nearest_name(project, workers):
    result = project.run("--model-opt=DeepCash", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: unknown model opt 'DeepCash'",
            "  expected: one of NoOpt, DeepCache, DeepCachePruned",
            "  from:     --model-opt",
            "  fix:      did you mean 'DeepCache'?",
        ]
    )
    assert project.calls() == []


def test_unknown_variant_in_the_environment_names_the_variable(project, monkeypatch):
    monkeypatch.setenv("SDXL_MODEL_OPT", "deepcache")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*from:     environment variable SDXL_MODEL_OPT", "*did you mean 'DeepCache'?"])


def test_help_does_not_need_good_values(project, monkeypatch):
    monkeypatch.setenv("SDXL_MODEL_OPT", "nonsense")
    assert project.run("--help").ret == pytest.ExitCode.OK


def test_nothing_collected_is_pytests_own_status(project):
    assert project.run("-m", "conformance").ret == pytest.ExitCode.NO_TESTS_COLLECTED
