"""Lines while LoadGen runs, which is silent for minutes otherwise.

The library says where a run stands as `phase: detail` (`running: 96/512, 2.9 samples/s`). A new phase is
shown at once; within a phase, a line every 10 seconds on a terminal and every 30 in a log. Under pytest-xdist
there are none: what a worker writes reaches no terminal.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_sdxl.xdist import is_worker

if TYPE_CHECKING:
    import pytest

TERMINAL_INTERVAL_S = 10.0
LOG_INTERVAL_S = 30.0


class Progress:
    """Prints a run's progress through pytest's terminal reporter, around its capturing.

    Args:
        config: Of this process; without a terminal reporter, or with -q, nothing is printed.
        label: What runs, at the start of each line.
    """

    def __init__(self, config: pytest.Config, label: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._reporter: pytest.TerminalReporter | None = reporter
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._label = label
        self._interval_s = TERMINAL_INTERVAL_S if reporter is not None and reporter.isatty else LOG_INTERVAL_S
        self._quiet = reporter is None or is_worker(config) or config.get_verbosity() < 0
        self._phase: str | None = None
        self._shown_s = 0.0

    def __call__(self, text: str) -> None:
        """Show `text`, if its phase is new or the last line is old enough."""
        phase = text.partition(":")[0]
        now_s = time.monotonic()
        if self._quiet or (phase == self._phase and now_s - self._shown_s < self._interval_s):
            return
        self._phase, self._shown_s = phase, now_s
        if self._capture is None:
            self._write(text)
            return
        with self._capture.global_and_fixture_disabled():
            self._write(text)

    def _write(self, text: str) -> None:
        if self._reporter is not None:
            self._reporter.write_line(f"sdxl {self._label}: {text}")
            self._reporter.flush()
