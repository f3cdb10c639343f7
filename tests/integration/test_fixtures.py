"""The fixtures: one run per configuration and mode, failures kept, pipelines closed."""

from __future__ import annotations


def test_a_run_is_made_once_per_configuration_and_mode(project):
    project.pytester.makepyfile(
        test_run="""
        def test_first(sdxl_run):
            assert sdxl_run("AccuracyOnly") is sdxl_run("AccuracyOnly")

        def test_second(sdxl_run):
            assert sdxl_run("AccuracyOnly").scores.clip == 90.5
        """
    )
    project.run("test_run.py", "--model-opt=NoOpt,DeepCache", "--sdxl-json=r.json").assert_outcomes(passed=4)
    assert sorted(project.calls()) == ["measure DeepCache AccuracyOnly", "measure NoOpt AccuracyOnly"]
    assert len(project.json("r.json")["results"]) == 2


def test_one_test_can_compare_configurations(project):
    project.pytester.makepyfile(
        test_run="""
        def test_compare(sdxl_run):
            runs = [sdxl_run("PerformanceOnly", model_opt=name) for name in ("NoOpt", "DeepCache")]
            assert [run.model_opt for run in runs] == ["NoOpt", "DeepCache"]
        """
    )
    result = project.run("test_run.py", "--sdxl-json=r.json")
    result.assert_outcomes(passed=1)
    assert [record["model_opt"] for record in project.json("r.json")["results"]] == ["NoOpt", "DeepCache"]


def test_a_failure_is_shown_once_and_pointed_to_after(project):
    project.behave(raises="EngineError")
    project.pytester.makepyfile(
        test_run="""
        def test_first(sdxl_run):
            sdxl_run("AccuracyOnly")

        def test_second(sdxl_run):
            sdxl_run("AccuracyOnly")
        """
    )
    result = project.run("test_run.py", "-rN")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "the network unet did not build",
            "  got:      a bad node",
            "  fix:      read the log",
            "not measured again: this run failed in test_run.py::test_first[[]DeepCache]: the network unet *",
        ]
    )
    assert project.calls() == ["measure DeepCache AccuracyOnly"]


def test_a_bug_keeps_its_traceback(project):
    project.behave(raises="ZeroDivisionError")
    result = project.run("test_accuracy.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *ZeroDivisionError", "*fake_measure.py:*: ZeroDivisionError"])


def test_the_pipeline_is_opened_once_per_variant_and_closed_before_the_next(project):
    project.pytester.makepyfile(
        test_pipeline="""
        def test_draw(sdxl_pipeline, sdxl_dataset):
            assert sdxl_pipeline.generate([1, 0]) == [1, 0]
            assert sdxl_dataset[0] == "a red circle"

        def test_engine(sdxl_engine, sdxl_settings):
            assert sdxl_engine == f"engine of {sdxl_settings.model_opt}"
        """
    )
    project.run("test_pipeline.py", "--model-opt=NoOpt,DeepCache").assert_outcomes(passed=4)
    assert project.calls() == ["open NoOpt", "close NoOpt", "open DeepCache", "close DeepCache"]


def test_a_pipeline_that_does_not_open_errors_without_a_traceback(project):
    project.behave(raises="EngineError")
    project.pytester.makepyfile(test_pipeline="def test_draw(sdxl_pipeline): pass")
    result = project.run("test_pipeline.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the network unet did not build"])
    result.stdout.no_fnmatch_line("*library().open_pipeline*")


def test_a_test_may_name_its_own_settings(project):
    project.pytester.makepyfile(
        test_own="""
        import pytest
        from sdxl_engine.settings import RunSettings

        ONE = RunSettings(samples=1)

        @pytest.mark.parametrize("n, sdxl_settings", [(1, ONE)], ids=["one"], indirect=["sdxl_settings"])
        def test_own(n, sdxl_settings):
            assert sdxl_settings.samples == n

        @pytest.mark.parametrize("sdxl_settings", ["NoOpt"], indirect=True)
        def test_wrong(sdxl_settings):
            pass
        """
    )
    result = project.run("test_own.py")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["sdxl_settings takes a RunSettings, got 'NoOpt'"])


def test_asking_late_works_for_one_variant_and_is_refused_for_several(project):
    project.pytester.makepyfile(
        test_late="""
        def test_late(request):
            assert request.getfixturevalue("sdxl_settings").model_opt == "NoOpt"
        """
    )
    project.run("test_late.py", "--model-opt=NoOpt").assert_outcomes(passed=1)
    result = project.run("test_late.py", "--model-opt=NoOpt,DeepCache")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*getfixturevalue cannot choose*"])


def test_a_run_that_is_not_one_loadgen_test_is_refused(project):
    project.pytester.makepyfile(
        test_mode="""
        def test_mode(sdxl_run):
            sdxl_run("SubmissionRun")
        """
    )
    project.run("test_mode.py").stdout.fnmatch_lines(["*UsageError: unknown run 'SubmissionRun'"])
    assert project.calls() == []
