"""What `sdxl-engine run` prints and how it ends, on figures that it is told."""

import pytest
from fake_measure import FakeMeasure

from sdxl_engine import commands
from sdxl_engine.cli import main

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
