"""What `sdxl-engine run` and `score` print and write, and how they end, on figures that they are told."""

import json
import math
from types import SimpleNamespace

import pytest
from fake_measure import RANGES, FakeMeasure, judge

from sdxl_engine import commands
from sdxl_engine.cli import main
from sdxl_engine.results import Scores, Verdict

ACCURACY = (
    "accuracy: [PASSED] CLIP_SCORE: 90.500 (Valid Range=[90.000,  91.000]) | "
    "[PASSED] FID_SCORE: 1.500 (Valid Range=[1.000,  2.000])"
)
PERFORMANCE = "performance: result_samples_per_second: 2.85, Result is VALID"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run `sdxl-engine run` on the given figures: exit status, what it printed."""

    def call(*arguments, fake=None):
        monkeypatch.setattr(commands, "measure", fake or FakeMeasure())
        status = main(["run", "--build-dir", str(tmp_path / "build"), "--test-mode", *arguments])
        return status, capsys.readouterr().out

    return call


def test_both_results_in_one_summary(run):
    status, shown = run("SubmissionRun")
    assert status == 0
    assert shown.split("\n") == [
        " ",
        "======================== Result summaries: ========================",
        "",
        " shapes-onnxruntime-DeepCache-fp32-Offline:",
        "   stable-diffusion-xl:",
        f"     {ACCURACY}",
        "       metrics shapes, 512 captions",
        f"     {PERFORMANCE}",
        " ",
        "",
    ]


@pytest.mark.parametrize(("mode", "line"), [("AccuracyOnly", ACCURACY), ("PerformanceOnly", PERFORMANCE)])
def test_one_result(run, mode, line):
    status, shown = run(mode)
    assert status == 0
    assert [text.strip() for text in shown.splitlines() if ": [" in text or "per_second" in text] == [line]


@pytest.mark.parametrize(
    ("fake", "mode", "says"),
    [
        (FakeMeasure(clip=80.0), "SubmissionRun", "[FAILED] CLIP_SCORE: 80.000"),
        (FakeMeasure(loadgen={"valid": False}), "PerformanceOnly", "Result is INVALID"),
        (FakeMeasure(loadgen={"errors": ("min_duration is not met",)}), "PerformanceOnly", "LoadGen: min_duration"),
    ],
)
def test_a_bad_result_is_status_1_and_shown(run, fake, mode, says):
    status, shown = run(mode, fake=fake)
    assert status == 1
    assert says in shown


class _BreaksInPerformanceMode(FakeMeasure):
    def measure(self, settings, mode, progress=None):
        self.raises = "EngineError" if mode == "PerformanceOnly" else ""
        return super().measure(settings, mode, progress)


def test_the_first_result_is_shown_where_the_second_test_breaks(run):
    status, shown = run("SubmissionRun", fake=_BreaksInPerformanceMode())
    assert status == 1
    assert ACCURACY in shown
    assert "performance" not in shown


def strict(path):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_json_of_a_run_is_the_plugins_document(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("SubmissionRun", "--json", "out/r.json")
    document = strict(tmp_path / "out" / "r.json")
    assert document["schema_version"] == 1
    assert document["generator"].startswith("pytest-sdxl ")
    assert document["gate"] == {"passed": True, "summary": "PASSED (1 accuracy, 1 performance)"}
    accuracy, performance = document["results"]
    assert accuracy["log_dir"] == "build/logs/DeepCache/AccuracyOnly"
    assert (accuracy["asked"]["engine"], accuracy["engine"]) == ("auto", "onnxruntime")
    assert [metric["name"] for metric in accuracy["metrics"]] == ["duration", "clip_score", "fid_score"]
    assert (performance["mode"], performance["verdict"]) == ("PerformanceOnly", None)


def test_the_json_of_a_run_that_fails_counts_what_failed(run, tmp_path):
    assert run("SubmissionRun", "--json", str(tmp_path / "r.json"), fake=FakeMeasure(clip=math.nan))[0] == 1
    document = strict(tmp_path / "r.json")
    assert document["gate"] == {"passed": False, "summary": "FAILED (1 accuracy, 0 performance)"}
    (clip,) = [metric for metric in document["results"][0]["metrics"] if metric["name"] == "clip_score"]
    assert (clip["value"], clip["not_finite"]) == (None, "nan")


@pytest.mark.parametrize(
    ("scores", "ranges", "gate"),
    [
        (Scores(90.5, 1.5, 512, "shapes"), RANGES, {"passed": True, "summary": "PASSED (1 accuracy)"}),
        (Scores(80.0, 1.5, 512, "shapes"), RANGES, {"passed": False, "summary": "FAILED (1 accuracy)"}),
        (Scores(90.5, 1.5, 6, "shapes"), None, {"passed": None, "summary": "NOT JUDGED (6 captions)"}),
    ],
)
def test_the_json_of_scores_has_the_metrics_of_a_run(run, monkeypatch, tmp_path, scores, ranges, gate):
    verdict = judge(scores, ranges) if ranges else Verdict(None, "accuracy: …", "6 captions")
    given = SimpleNamespace(score_images=lambda *_: scores, judged=lambda *_: (ranges, verdict))
    run("AccuracyOnly", "--json", str(tmp_path / "run.json"))
    monkeypatch.setattr(commands, "measure", given)
    assert main(["score", "--images", ".", "--json", str(tmp_path / "s.json")]) == int(gate["passed"] is False)
    document, of_run = strict(tmp_path / "s.json"), strict(tmp_path / "run.json")
    assert document.keys() == of_run.keys()
    assert document["gate"] == gate
    (result,) = document["results"]
    assert (result["model"], result["samples"]) == ("shapes", scores.count)
    assert result["verdict"] == {"passed": verdict.passed, "line": verdict.line, "reason": verdict.reason}
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("clip_score", scores.clip),
        ("fid_score", scores.fid),
    ]
    assert result.keys() < of_run["results"][0].keys()
    assert result["metrics"][0].keys() == of_run["results"][0]["metrics"][1].keys()
    assert result["metrics"][0]["valid_range"] == ([90.0, 91.0] if ranges else None)
