"""`--sdxl-test-mode`: one of LoadGen's two tests, or both."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("workers", [(), ("-n1",)])
@pytest.mark.parametrize(
    ("mode", "measured"),
    [
        ("AccuracyOnly", ["AccuracyOnly"]),
        ("PerformanceOnly", ["PerformanceOnly"]),
        ("SubmissionRun", ["AccuracyOnly", "PerformanceOnly"]),
    ],
)
def test_gates_of_the_other_mode_are_deselected(project, mode, measured, workers):
    result = project.run(f"--sdxl-test-mode={mode}", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=len(measured), deselected=0 if workers else 2 - len(measured))
    assert project.calls() == [f"measure DeepCache {name}" for name in measured]


def test_tests_without_a_run_stay_whatever_their_marker(project):
    project.pytester.makepyfile(
        test_other="""
        import pytest

        @pytest.mark.performance
        def test_import_time():
            pass
        """
    )
    project.run("--sdxl-test-mode=AccuracyOnly").assert_outcomes(passed=2, deselected=1)


def test_a_test_of_both_gates_stays_in_both_modes(project):
    project.pytester.makepyfile(
        test_both="""
        import pytest

        @pytest.mark.accuracy
        @pytest.mark.performance
        def test_both(sdxl_run):
            assert all(sdxl_run(mode).loadgen.valid for mode in ("AccuracyOnly", "PerformanceOnly"))
        """
    )
    for mode in ("AccuracyOnly", "PerformanceOnly"):
        result = project.run(f"--sdxl-test-mode={mode}", "test_both.py")
        assert result.ret == pytest.ExitCode.OK
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["sdxl gate: PASSED (1 accuracy, 1 performance)"])
