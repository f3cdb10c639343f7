"""A red gate is status 1 and says why; one that judged nothing is not green."""

from __future__ import annotations

import math

import pytest

FAILED = pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_green(project, workers):
    result = project.run(*workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["sdxl gate: PASSED (1 accuracy, 1 performance)"])


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"clip": 80.0}, "CLIP_SCORE 80, valid range [[]90, 91]: 10 too low"),
        ({"fid": 3.0}, "FID_SCORE 3, valid range [[]1, 2]: 1 too high"),
        ({"clip": math.nan}, "CLIP_SCORE nan*not a number"),
        ({"measurement": {"scores": None}}, "no scores"),
    ],
)
@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_red_accuracy(project, behaviour, said, workers):
    project.behave(**behaviour)
    result = project.run(*workers)
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*got: *{said}*", "sdxl gate: FAILED (1 accuracy, 0 performance)"])


@pytest.mark.parametrize("loadgen", [{"valid": False}, {"errors": ("a response was lost",)}])
def test_an_invalid_loadgen_run_fails_both(project, loadgen):
    project.behave(loadgen=loadgen)
    result = project.run()
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        [
            "the LoadGen run is INVALID: DeepCache on onnxruntime*",
            "sdxl gate: FAILED (1 accuracy, 1 performance)",
        ]
    )


def test_all_skipped_is_said(project):
    result = project.run("--sdxl-model=random", "-m", "accuracy")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["sdxl gate: NOT JUDGED (all skipped: 1 accuracy)"])


def test_a_gate_that_measured_nothing_fails_the_session(project):
    project.pytester.makepyfile(
        test_accuracy="""
        import pytest

        @pytest.mark.accuracy
        def test_accuracy(sdxl_run):
            pass
        """
    )
    result = project.run()
    assert result.ret == FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["sdxl gate: FAILED (0 results for accuracy: the tests measured nothing)"])


def test_a_setup_error_of_a_gate_is_red(project):
    project.pytester.makepyfile(
        test_accuracy="""
        import pytest

        @pytest.fixture
        def broken():
            raise ValueError

        @pytest.mark.accuracy
        def test_accuracy(broken, sdxl_run):
            pass
        """
    )
    result = project.run("test_accuracy.py")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["sdxl gate: FAILED (1 accuracy, 0 performance)"])


def test_marker_expression_selects_the_gates(project):
    result = project.run("-m", "accuracy", "--strict-markers")
    result.assert_outcomes(passed=1, deselected=1)
    assert project.calls() == ["measure DeepCache AccuracyOnly"]
