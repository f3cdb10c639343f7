"""The conformance suite as its users run it: installed, on two workers, on an engine that does not open."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pytest_sdxl import checks
from pytest_sdxl.options import OPTIONS

ROOT = Path(__file__).parents[2]
PLUGIN = [] if importlib.metadata.entry_points(group="pytest11", name="sdxl") else ["-p", "pytest_sdxl.plugin"]

MINE = """
from sdxl_engine.engines import EngineEntry, EngineRequest, torch_engine
from sdxl_engine.errors import EngineError

BROKEN = EngineEntry(name="broken", factory="mine:broken")
EIGHT_BITS = EngineEntry(name="torch", factory="mine:eight_bits", precisions=("fp8",))

def broken(request):
    raise EngineError("the plan does not fit", got="sm_89", expected="sm_90", fix="build it again")

def eight_bits(request):
    return torch_engine.create(EngineRequest(checkpoint=request.checkpoint, spec=request.spec, cache=request.cache))
"""


@pytest.fixture
def run(tmp_path, build_dir):
    """Runs the suite from a folder that has nothing but a place for built engines."""
    build_dir.mkdir(parents=True, exist_ok=True)
    (tmp_path / "build").symlink_to(build_dir, target_is_directory=True)
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # With CI or BUILD_NUMBER set, pytest repeats the whole text of each error in its summary.
    known = {option.env for option in OPTIONS} | {"CI", "BUILD_NUMBER"}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def run(*args):
        return subprocess.run(
            [sys.executable, "-P", "-m", "pytest", *PLUGIN, "--pyargs", "pytest_sdxl.conformance", *args],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_it_runs_as_installed_and_notes_its_figures(run, tmp_path):
    result = run(
        "--sdxl-engine=torch", "--sdxl-device=cpu", "--junitxml=r.xml", "-k", "clip1 and (test_values or empty)"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^test_values +\d+\.\d% .* of .*: ", result.stdout, re.MULTILINE)
    noted = ET.parse(tmp_path / "r.xml").findall(".//property[@name='sdxl_conformance']")
    figures = [json.loads(each.get("value")) for each in noted]
    assert figures
    assert all(figure["value"] <= figure["bound"] for figure in figures)


def test_it_runs_on_two_workers(run):
    result = run("--sdxl-engine=torch", "--sdxl-device=cpu", "-n2", "-k", "clip1 and (test_values or empty)")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 workers" in result.stdout
    assert re.search(r"^test_values +\d+\.\d% .* of .*: ", result.stdout, re.MULTILINE)


def test_an_engine_that_does_not_open_says_why_and_no_more(run, tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    result = run("--sdxl-engine=mine:BROKEN", "-k", "test_determinism")
    assert result.returncode == 1
    assert result.stdout.count("the plan does not fit\n  got:      sm_89\n  expected: sm_90\n  fix:      build") == 5
    assert "run_engine.py" not in result.stdout


def test_a_precision_without_bounds_is_refused_where_one_is_needed(run, tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    result = run("--sdxl-engine=mine:EIGHT_BITS", "-k", "clip1 and (test_determinism or empty)")
    assert re.search("= 1 failed, 1 passed, ", result.stdout)
    assert "there are no conformance bounds for fp8\n  got:      fp8\n" in result.stdout
    assert "figures.py" not in result.stdout


def test_the_marker_finds_it(pytestconfig):
    assert "pytest_sdxl/conformance" in pytestconfig.getini("testpaths")
    modules = [path.read_text(encoding="utf-8") for path in (ROOT / "pytest_sdxl" / "conformance").glob("test_*.py")]
    assert all("\npytestmark = pytest.mark.conformance\n" in module for module in modules)


@pytest.mark.parametrize(
    ("args", "mode"),
    [
        (["-m", "conformance"], "PerformanceOnly"),
        (["--pyargs", "pytest_sdxl.conformance"], "PerformanceOnly"),
        ([f"{ROOT}/pytest_sdxl/conformance/test_values.py::test_values"], "PerformanceOnly"),
        (["-m", "conformance or accuracy"], "SubmissionRun"),
        (["--pyargs", "pytest_sdxl.conformance", "."], "SubmissionRun"),
        ([], "SubmissionRun"),
    ],
)
def test_alone_it_needs_no_scorer(pytester, monkeypatch, args, mode):
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    asked = []
    monkeypatch.setattr(checks, "check_environment", lambda _, settings: asked.append(settings.test_mode))
    pytester.parseconfigure(*PLUGIN, "--sdxl-engine=torch", *args)
    assert asked == [mode]
