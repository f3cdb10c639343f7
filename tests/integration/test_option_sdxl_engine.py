"""`--sdxl-engine`: an engine that is unknown or not installed stops only those who need it, with status 4."""

from __future__ import annotations

import pytest

USAGE = pytest.ExitCode.USAGE_ERROR


def test_engine_reaches_the_run(project):
    result = project.run("--sdxl-engine=torch")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["sdxl: *engine=torch*"])


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_engine_that_is_not_installed_is_a_usage_error(project, workers):
    result = project.run("--sdxl-engine=tensorrt", *workers)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        ["ERROR: the engine tensorrt is not installed", "*fix: *pip install 'pytest-sdxl[[]tensorrt]'"]
    )
    assert project.calls() == []


def test_unknown_engine_names_the_nearest(project):
    result = project.run("--sdxl-engine=onnxruntim")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["*unknown engine 'onnxruntim'", "*did you mean 'onnxruntime'?"])


@pytest.mark.parametrize("option", ["--collect-only", "--help"])
def test_listing_needs_no_engine(project, option):
    assert project.run("--sdxl-engine=tensorrt", option).ret == pytest.ExitCode.OK


def test_environment_variable_stops_a_session_that_selected_such_tests(project, monkeypatch):
    monkeypatch.setenv("SDXL_ENGINE", "tensorrt")
    result = project.run()
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["ERROR: the engine tensorrt is not installed"])
    assert project.calls() == []


def test_under_xdist_the_tests_say_it_and_the_status_is_4(project, monkeypatch):
    monkeypatch.setenv("SDXL_ENGINE", "tensorrt")
    project.pytester.makepyfile(test_other="def test_other(): pass")
    result = project.run("-n2", "-m", "not performance")
    assert result.ret == USAGE
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["the engine tensorrt is not installed", "sdxl gate: FAILED (1 accuracy, *"])
    assert project.calls() == []


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_tests_that_need_no_engine_do_not_care(project, monkeypatch, workers):
    monkeypatch.setenv("SDXL_ENGINE", "tensorrt")
    project.pytester.makepyfile(test_other="def test_other(): pass")
    result = project.run("-k", "test_other", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*sdxl gate*")


def test_a_usage_error_out_of_the_run_itself_is_status_4_too(project):
    project.behave(raises="UnavailableError")
    result = project.run()
    assert result.ret == USAGE
    result.stdout.fnmatch_lines(["*the accelerator went away*"])


def test_a_broken_file_fails_its_tests_with_status_1(project):
    project.behave(broken_captions=True, raises="EngineError")
    result = project.run("--sdxl-engine=torch")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["sdxl: *problem=the captions file has no column caption"])
    result.assert_outcomes(failed=2)
