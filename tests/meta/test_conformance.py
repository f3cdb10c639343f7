"""The conformance suite finds each of these faults by the one check that is for it, and nothing in a sound engine.

On `shapes` and a CPU; the engines torch and onnxruntime pass.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.faulty_engines import FAULTS

NO_LIMIT, NO_GRAPH = "test_a_batch_above_its_limit_is_refused", "test_a_graph_replays_it"
SOUND = {"torch": {NO_LIMIT, NO_GRAPH}, "onnxruntime": {NO_LIMIT, NO_GRAPH}, "intact": {NO_GRAPH}}
"""Engines that pass, and the checks that are not for them."""

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "pytest_sdxl" / "conformance"


def checks():
    return {
        node.name
        for path in SUITE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    target = tmp_path_factory.mktemp("runs") / "runs.json"
    ours = [f"tests.support.faulty_engines:{name}" for name in ("intact", *FAULTS)]
    command = [sys.executable, "-m", "tests.support.conformance_runs", target, "torch", "onnxruntime", *ours]
    # One thread: two that wait for each other on a shared machine take three times as long.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert target.is_file(), done.stdout + done.stderr
    return json.loads(target.read_text(encoding="utf-8"))


def test_every_check_has_a_fault():
    assert {fault.check for fault in FAULTS.values()} == checks()


@pytest.mark.parametrize("engine", SOUND)
def test_a_sound_engine_passes(runs, engine):
    sound = runs[engine]
    assert sound["failed"] == {}
    assert {nodeid.rpartition("::")[2] for nodeid in sound["skipped"]} == SOUND[engine]
    assert len(sound["passed"]) > len(FAULTS)
    assert sound["status"] == 0
    figures = [json.loads(figure) for figure in sound["figures"]]
    assert len(figures) > 100
    assert all(figure["value"] <= figure["bound"] for figure in figures)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_the_check_that_is_for_it_and_no_other(runs, name):
    failed, fault = runs[name]["failed"], FAULTS[name]
    assert {nodeid.partition("::")[2].partition("[")[0] for nodeid in failed} == {fault.check}
    assert any(fault.said in text for text in failed.values()), "\n".join(failed.values())
    for others in (set(runs["intact"]["passed"]), set(runs["intact"]["skipped"])):
        assert others - failed.keys() <= {*runs[name]["passed"], *runs[name]["skipped"]}, "some did not run"
    assert runs[name]["status"] == 1
