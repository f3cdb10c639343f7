"""What TensorRT says while it builds or runs: its messages, and how far a build is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sdxl_engine.engines.tensorrt.api import trt

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_KEPT = 8
_DEEPEST = 2
"""Phases below this level are counted but have no line of their own: there is one per layer."""


class Messages(trt.ILogger):
    """Writes TensorRT's messages to a file and keeps the last errors, for the error that a user sees.

    Args:
        file: Gets everything from INFO up; None keeps the errors alone.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__()
        self._file = file
        self._errors: deque[str] = deque(maxlen=_KEPT)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity <= trt.ILogger.Severity.ERROR:
            self._errors.append(msg.strip())
        if self._file is not None and severity <= trt.ILogger.Severity.INFO:
            print(f"{severity.name}: {msg}", file=self._file, flush=severity <= trt.ILogger.Severity.WARNING)

    @property
    def errors(self) -> str:
        """The last errors, oldest first."""
        return "; ".join(self._errors) or "TensorRT gave no reason"


class BuildProgress(trt.IProgressMonitor):
    """Turns TensorRT's tree of phases into one line per phase, with how much of the whole is done.

    Args:
        tell: Called with each line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._open: list[_Phase] = []

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT; a phase without a parent is the whole build."""
        while self._open and self._open[-1].name != parent_phase:
            self._open.pop()
        if self._open and len(self._open) <= _DEEPEST:
            self._tell(f"{phase_name.lower()}: {self.percent:.0f} % of the build done")
        self._open.append(_Phase(phase_name, num_steps))

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Called by TensorRT; False would cancel the build."""
        for phase in self._open:
            if phase.name == phase_name:
                phase.done = step + 1
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Called by TensorRT."""
        names = [phase.name for phase in self._open]
        if phase_name in names:
            del self._open[names.index(phase_name) :]

    @property
    def percent(self) -> float:
        """Share of the build that is done: each open phase is one step of the one around it."""
        share = 0.0
        for phase in reversed(self._open):
            share = min(1.0, (phase.done + share) / max(1, phase.steps))
        return 100 * share


class _Phase:
    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.done = name, steps, 0
