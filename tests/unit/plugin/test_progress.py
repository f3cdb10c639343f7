"""Progress: a new phase at once, within a phase a line now and then."""

from __future__ import annotations

import pytest

from pytest_sdxl.report import progress
from pytest_sdxl.report.progress import Progress


class Reporter:
    """Keeps what is written."""

    def __init__(self, *, isatty: bool) -> None:
        self.isatty = isatty
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)

    def flush(self) -> None:
        pass


class Config:
    """As much of pytest's config as is asked for, without capturing."""

    def __init__(self, reporter: Reporter | None, verbosity: int = 0) -> None:
        self.pluginmanager = self
        self._plugins = {"terminalreporter": reporter}
        self._verbosity = verbosity

    def get_plugin(self, name: str) -> Reporter | None:
        return self._plugins.get(name)

    def get_verbosity(self) -> int:
        return self._verbosity


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start, to be set."""
    now = {"s": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: now["s"])
    return now


@pytest.mark.parametrize(("isatty", "interval_s"), [(True, 10), (False, 30)])
def test_a_line_per_interval_and_per_phase(clock, isatty, interval_s):
    reporter = Reporter(isatty=isatty)
    show = Progress(Config(reporter), "DeepCache AccuracyOnly")
    for second in range(61):
        clock["s"] = 100.0 + second
        show(f"running: {second}/60")
    shown = [f"sdxl DeepCache AccuracyOnly: running: {second}/60" for second in range(0, 61, interval_s)]
    assert reporter.lines == shown
    show("scoring: 0/60")
    assert reporter.lines[len(shown) :] == ["sdxl DeepCache AccuracyOnly: scoring: 0/60"]


@pytest.mark.parametrize("config", [Config(None), Config(Reporter(isatty=True), verbosity=-1)])
def test_silent_without_a_terminal_and_when_quiet(clock, config):
    Progress(config, "x")("running: 1/2")
    reporter = config.get_plugin("terminalreporter")
    assert reporter is None or reporter.lines == []
