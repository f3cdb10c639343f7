import pytest

pytest.importorskip("tensorrt_rtx")

from sdxl_engine.engines.tensorrt.api import trt
from sdxl_engine.engines.tensorrt.messages import BuildProgress, Messages


def test_one_line_per_phase_and_none_per_layer():
    told = []
    progress = BuildProgress(told.append)
    progress.phase_start("Building engine", None, 4)
    progress.phase_start("Cloning network graph", "Building engine", 500)
    for step in range(500):
        assert progress.step_complete("Cloning network graph", step)
    progress.phase_finish("Cloning network graph")
    progress.step_complete("Building engine", 0)
    progress.step_complete("Building engine", 1)
    progress.phase_start("Timing", "Building engine", 10)
    progress.step_complete("Timing", 4)
    progress.phase_start("Timing graph nodes", "Timing", 10)
    progress.phase_start("Timing layer 1", "Timing graph nodes", 10)
    progress.phase_finish("Building engine")
    assert told == [
        "cloning network graph: 0 % of the build done",
        "timing: 50 % of the build done",
        "timing graph nodes: 62 % of the build done",
    ]


def test_errors_are_kept_for_the_user_and_chatter_is_left_out(tmp_path):
    severity = trt.ILogger.Severity
    with (tmp_path / "log").open("w") as file:
        messages = Messages(file)
        assert messages.errors == "TensorRT gave no reason"
        messages.log(severity.VERBOSE, "tactic 1")
        messages.log(severity.INFO, "Detected 5 inputs")
        messages.log(severity.ERROR, "Error Code 2: OutOfMemory ")
    assert messages.errors == "Error Code 2: OutOfMemory"
    assert (tmp_path / "log").read_text() == "INFO: Detected 5 inputs\nERROR: Error Code 2: OutOfMemory \n"
