"""An engine of a third party's: the example in docs/engines.md, as it stands there, registered in each of the ways."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "engines.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLE, TOML, HOOK = (text for _, text in BLOCKS)

TEST = """
import numpy as np

def test_draws(sdxl_pipeline, sdxl_engine):
    assert sdxl_engine.capabilities.precision == "fp32"
    images = sdxl_pipeline.generate(np.arange(1))
    assert images.shape == (1, 128, 128, 3)
    assert sdxl_engine.name == "channels-last"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the engine, which Python searches for modules and for installed packages."""
    (tmp_path / "channels_last.py").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path


def pytest_in(folder, *args):
    installed = importlib.metadata.entry_points(group="pytest11", name="sdxl")
    command = [sys.executable, "-P", "-m", "pytest", *([] if installed else ["-p", "pytest_sdxl.plugin"]), *args]
    options = ["--sdxl-model=shapes", "--sdxl-samples=4", "--sdxl-deep-steps=0"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


def install(folder):
    package = folder / "channels_last-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: channels-last\nVersion: 1.0\n", encoding="utf-8")
    group, line = TOML.splitlines()
    name = re.search(r'"(.*)"', group)[1]
    (package / "entry_points.txt").write_text(f"[{name}]\n{line.replace(chr(34), '')}\n", encoding="utf-8")


def test_the_example_is_about_sixty_lines():
    assert 45 <= len(EXAMPLE.splitlines()) <= 75


def test_by_import_path(folder):
    result = pytest_in(folder, "--sdxl-engine=channels_last:ENTRY")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_by_hook(folder):
    (folder / "conftest.py").write_text(HOOK, encoding="utf-8")
    text = "def test_settings(sdxl_settings):\n    assert sdxl_settings.engine == 'channels_last:ENTRY'\n"
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    result = pytest_in(folder, "--sdxl-engine=channels-last")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_by_entry_point_through_loadgen_with_the_command_line(folder):
    """The whole way: a run in LoadGen's process, its figures under the engine's name and precision.

    Of so many samples that it lasts the 2 s of LoadGen's shortest run on a fast machine too.
    """
    install(folder)
    target = folder / "results.json"
    command = [sys.executable, "-P", "-m", "sdxl_engine", "run", "--engine", "channels-last", "--model", "shapes"]
    options = ["--test-mode", "PerformanceOnly", "--samples", "12", "--batch-size", "1", "--json", str(target)]
    result = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    recorded = json.loads(target.read_text(encoding="utf-8"))["results"][0]
    assert (recorded["engine"], recorded["precision"]) == ("channels-last", "fp32")


def test_doctor_lists_it(folder):
    install(folder)
    command = [sys.executable, "-P", "-m", "sdxl_engine", "doctor", "--model", "shapes"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert '"channels-last": "ready"' in result.stdout, result.stdout + result.stderr


def test_what_is_not_an_entry_is_refused(folder):
    result = pytest_in(folder, "--sdxl-engine=channels_last:create")
    assert result.returncode == 4
    assert "this is not an engine's entry" in result.stderr
    result = pytest_in(folder, "--sdxl-engine=channels_first:ENTRY")
    assert result.returncode == 4
    assert "this engine cannot be imported" in result.stderr
