"""A small project that measures with the plugin, in a pytester folder, over a fake of the engine library."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_sdxl.options import OPTIONS

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "support" / "fake_measure.py"

CONFTEST = """
import sys
from math import inf, nan

import fake_measure

sys.modules["sdxl_engine.measure"] = fake_measure.FakeMeasure(**{behaviour!r})
"""

BENCHMARKS = {
    "test_accuracy": "benchmarks/test_accuracy.py",
    "test_performance": "benchmarks/test_performance.py",
}


class Project:
    """Runs pytest on the repository's own benchmarks, with the plugin loaded and nothing else of ours."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.behave()
        shutil.copy(FAKE, self.path)
        for name, source in BENCHMARKS.items():
            pytester.makepyfile(**{name: (ROOT / source).read_text(encoding="utf-8")})

    def behave(self, **behaviour: Any) -> None:
        """Set what the fake library does."""
        self.pytester.makeconftest(CONFTEST.format(behaviour=behaviour))

    @property
    def plugin_args(self) -> list[str]:
        """What loads the plugin: nothing where it is installed."""
        installed = importlib.metadata.entry_points(group="pytest11", name="sdxl")
        return [] if installed else ["-p", "pytest_sdxl.plugin"]

    def run(self, *args: str | Path) -> pytest.RunResult:
        """Run pytest in this process."""
        return self.pytester.runpytest_inprocess(*self.plugin_args, *args)

    def run_apart(self, *args: str | Path) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        return self.pytester.runpytest_subprocess(*self.plugin_args, *args)

    def calls(self) -> list[str]:
        """What the fake library was asked to do, in order, but for checks and descriptions."""
        log = self.path / "calls.txt"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [line for line in lines if not line.startswith(("check", "describe"))]

    def json(self, name: str = "results.json") -> Any:
        """A JSON file of the project; NaN is an error."""

        def refuse(text: str) -> None:
            raise AssertionError(f"{text} is not JSON")

        return json.loads((self.path / name).read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project; the fake measures good figures until `project.behave(...)` says otherwise."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    return Project(pytester)
