"""Loading: cheap for those who do not measure, sound with other plugins absent, and without traces."""

from __future__ import annotations

import json
import sys

import pytest

HEAVY = ("PIL", "diffusers", "mlperf_loadgen", "numpy", "onnx", "onnxruntime", "psutil", "scipy", "tensorrt")
HEAVY += ("torch", "torchmetrics", "torchvision", "transformers")

PROBE = """
import json, subprocess, sys

started = []
subprocess.Popen.__init__ = lambda self, *args, **kwargs: started.append(repr(args))

import pytest

status = pytest.main(["--collect-only", "-q", "-p", "pytest_sdxl.plugin", "-p", "no:cacheprovider"])
loaded = [name for name in sys.argv[1].split() if name in sys.modules]
ours = "pytest_sdxl.plugin" in sys.modules
print(json.dumps({"status": int(status), "loaded": loaded, "started": started, "ours": ours}))
"""


def test_loading_imports_nothing_heavy_and_starts_no_process(pytester, monkeypatch, pytestconfig):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    probe = pytester.makepyfile(probe=PROBE)
    result = pytester.run(sys.executable, probe, " ".join(HEAVY))
    assert json.loads(result.stdout.lines[-1]) == {
        "status": int(pytest.ExitCode.NO_TESTS_COLLECTED),
        "loaded": [],
        "started": [],
        "ours": True,
    }


def test_autoload_disabled(project, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = project.pytester.runpytest_subprocess("-p", "pytest_sdxl.plugin", "--sdxl-json=r.json")
    result.assert_outcomes(passed=2)
    assert len(project.json("r.json")["results"]) == 2


@pytest.mark.parametrize("blocked", ["xdist", "terminal", "junitxml", "cacheprovider", "benchmark"])
def test_without_another_plugin(project, blocked):
    args = ["-p", "no:xdist"] if blocked == "xdist" else ["-p", f"no:{blocked}"]
    result = project.run(*args, "--sdxl-json=r.json")
    assert result.ret == pytest.ExitCode.OK
    assert len(project.json("r.json")["results"]) == 2


def test_without_a_terminal_a_red_gate_is_still_status_1(project):
    project.behave(clip=80.0)
    assert project.run("-p", "no:terminal").ret == pytest.ExitCode.TESTS_FAILED


def test_two_sessions_in_one_process_share_nothing(project):
    project.behave(clip=80.0)
    assert project.run("--model-opt=NoOpt", "--sdxl-json=a.json").ret == pytest.ExitCode.TESTS_FAILED
    project.behave()
    result = project.run("--sdxl-json=b.json")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["sdxl gate: PASSED (1 accuracy, 1 performance)"])
    assert {record["model_opt"] for record in project.json("b.json")["results"]} == {"DeepCache"}
    assert len(project.calls()) == 4


def test_results_reach_the_hook_as_they_arrive(project):
    conftest = (project.path / "conftest.py").read_text()
    hook = """
def pytest_sdxl_result(config, result):
    print("HOOK", result.model_opt, result.mode, [metric.name for metric in result.metrics], file=sys.stderr)
"""
    (project.path / "conftest.py").write_text(conftest + hook)
    for workers in ((), ("-n1",)):
        result = project.run("-s", *workers)
        result.stderr.fnmatch_lines(
            [
                "HOOK DeepCache AccuracyOnly [[]'duration', 'clip_score', 'fid_score']",
                "HOOK DeepCache PerformanceOnly [[]'duration', 'samples_per_second', 'peak_memory']",
            ]
        )
        assert sum(line.startswith("HOOK") for line in result.stderr.lines) == 2
