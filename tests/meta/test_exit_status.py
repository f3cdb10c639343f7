"""The command that users and their CI run, in a process of its own: its exit status and its last lines.

The images are rendered, not drawn: what the pipeline does to the scores is the business of test_sabotage.py.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def accuracy_run(tmp_path, pipeline):
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "benchmarks", "-m", "accuracy", "--model-opt=DeepCache"),
            *("--sdxl-model=shapes", "--sdxl-samples=128", f"--sdxl-json={tmp_path / 'r.json'}"),
            f"--sdxl-pipeline=tests.support.quick_pipelines:{pipeline}",
            *("-p", "no:cacheprovider"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_run_is_green_and_prints_the_benchmarks_line(tmp_path):
    result = accuracy_run(tmp_path, "clean_renders")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "accuracy: [PASSED] CLIP_SCORE: " in result.stdout
    assert "| [PASSED] FID_SCORE: " in result.stdout
    (stored,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert stored["model_opt"] == "DeepCache"


def test_a_faulty_pipeline_is_red(tmp_path):
    result = accuracy_run(tmp_path, "swapped_renders")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "[FAILED] CLIP_SCORE: " in result.stdout
    assert "accuracy is out of range" in result.stdout
