"""Header, summary and progress: what a user reads, and when they do not have to."""

from __future__ import annotations

import pytest

ACCURACY_LINE = (
    "accuracy: [[]PASSED] CLIP_SCORE: 90.500 (Valid Range=[[]90.000,  91.000]) | "
    "[[]PASSED] FID_SCORE: 1.500 (Valid Range=[[]1.000,  2.000])"
)


def test_header_names_what_auto_stands_for(project):
    result = project.run("--model-opt=DeepCache,NoOpt")
    result.stdout.fnmatch_lines(["sdxl: model-opt=DeepCache,NoOpt, model=shapes, engine=onnxruntime, samples=512"])


def test_header_names_the_source_of_settings_that_are_not_on_the_command_line(project, monkeypatch):
    project.pytester.makeini("[pytest]\nsdxl_samples = 64\n")
    monkeypatch.setenv("SDXL_MODEL_OPT", "NoOpt")
    project.run().stdout.fnmatch_lines(
        [
            "sdxl: model-opt=NoOpt,*samples=64",
            "sdxl settings from: environment variable SDXL_MODEL_OPT, sdxl_samples in *tox.ini",
        ]
    )


def test_header_comes_with_our_markers(project):
    project.run("-m", "accuracy").stdout.fnmatch_lines(["sdxl: model-opt=DeepCache, model=shapes*"])


def test_an_unrelated_session_sees_nothing_of_us(project):
    project.pytester.makepyfile(test_other="def test_other(): pass")
    result = project.run("test_other.py")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*sdxl:*")
    result.stdout.no_fnmatch_line("*sdxl gate*")
    assert not (project.path / "calls.txt").exists()


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_summary(project, monkeypatch, workers):
    monkeypatch.setenv("COLUMNS", "120")
    project.behave(loadgen={"peak_memory_bytes": 3 * 2**29})
    result = project.run(*workers)
    result.stdout.fnmatch_lines(
        [
            "*== sdxl ==*",
            "model-opt | engine      | model  | samples/s | valid | CLIP   | FID   | peak GiB | verdict",
            "DeepCache | onnxruntime | shapes | 2.85      | yes   | 90.500 | 1.500 | 1.50     | PASSED",
            "",
            "DeepCache on onnxruntime (fp32), Offline, model shapes, metric shapes, 512 samples:",
            ACCURACY_LINE,
            " gate: published (shapes with ranges of its own)",
            " 95 % interval: CLIP 90.500 [[]90.250, 90.750], FID 1.500 [[]1.375, 1.625]",
            "DeepCache on onnxruntime (fp32), Offline, model shapes, 128 samples:",
            "performance: result_samples_per_second: 2.85, Result is VALID",
            "sdxl gate: PASSED (1 accuracy, 1 performance)",
            "*== 2 passed*",
        ],
        consecutive=True,
    )


def test_summary_of_a_red_run_gives_reasons_and_logs(project):
    project.behave(loadgen={"valid": False, "errors": ("min_duration is not met",)})
    result = project.run("test_performance.py")
    result.stdout.fnmatch_lines(
        [
            "performance: result_samples_per_second: 2.85, Result is INVALID",
            " min_duration is not met",
            " logs: build/logs/DeepCache/PerformanceOnly",
            "sdxl gate: FAILED (0 accuracy, 1 performance)",
        ],
        consecutive=True,
    )


def test_a_run_that_no_gate_judges_gives_its_reason(project):
    project.pytester.makeconftest(
        """
        import sys

        import fake_measure
        from sdxl_engine.results import Verdict

        line = "accuracy: CLIP_SCORE: 90.5 | FID_SCORE: 1.5 (no ranges)"
        verdict = Verdict(None, line, "another count of captions")
        sys.modules["sdxl_engine.measure"] = fake_measure.FakeMeasure(measurement={"verdict": verdict})
        """
    )
    result = project.run("-m", "accuracy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "accuracy: CLIP_SCORE: 90.5 | FID_SCORE: 1.5 (no ranges)",
            " not judged: another count of captions",
            "sdxl gate: FAILED (1 accuracy, 0 performance)",
        ]
    )


def test_variants_have_a_row_each_and_configurations_their_own(project, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = project.run("--model-opt=NoOpt,DeepCachePruned")
    result.stdout.fnmatch_lines(["NoOpt           | onnxruntime |*", "DeepCachePruned | onnxruntime |*"])


def test_several_devices_are_told(project, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = project.run("--sdxl-device=cpu,cpu", "--sdxl-json=r.json")
    result.stdout.fnmatch_lines(["DeepCache | onnxruntime x2 |*", "DeepCache on onnxruntime x2 (fp32), Offline,*"])
    assert {each["devices"] for each in project.json("r.json")["results"]} == {2}


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("85", "DeepCache  onnxruntime  shapes  2.85       yes    90.500*"),
        ("76", "DeepCache onnxruntime shapes 2.85      yes   90.500*"),
        ("60", "samples/s: 2.85"),
    ],
)
def test_the_table_keeps_to_the_width(project, monkeypatch, columns, line):
    monkeypatch.setenv("COLUMNS", columns)
    project.run().stdout.fnmatch_lines([line])


def test_quiet_leaves_out_the_table_and_very_quiet_all_but_the_gate(project):
    quiet = project.run("-q").stdout
    quiet.no_fnmatch_line("*peak GiB*")
    quiet.fnmatch_lines(["performance: *VALID", "sdxl gate: PASSED*"])
    very_quiet = project.run("-qq").stdout
    very_quiet.no_fnmatch_line("performance: *")
    very_quiet.fnmatch_lines(["sdxl gate: PASSED*"])


def test_progress_shows_each_phase_once_and_not_every_line(project):
    project.behave(
        lines=("loading", "running: 1/512, 2.9 samples/s", "running: 2/512, 2.9 samples/s", "scoring: 0/512")
    )
    result = project.run("test_accuracy.py")
    result.stdout.fnmatch_lines(
        [
            "sdxl DeepCache AccuracyOnly: loading",
            "sdxl DeepCache AccuracyOnly: running: 1/512, 2.9 samples/s",
            "sdxl DeepCache AccuracyOnly: scoring: 0/512",
        ],
        consecutive=True,
    )


@pytest.mark.parametrize("args", [("-q",), ("-n1",), ("-p", "no:terminal")])
def test_progress_is_silent_where_nobody_reads_it(project, args):
    project.behave(lines=("loading",))
    result = project.run("test_accuracy.py", *args)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*: loading")


def test_progress_without_capturing(project):
    project.behave(lines=("loading",))
    project.run("test_accuracy.py", "-p", "no:capture").stdout.fnmatch_lines(["*AccuracyOnly: loading"])
