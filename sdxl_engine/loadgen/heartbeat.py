"""The lines that a LoadGen child writes to its pipe, and what the parent makes of them.

One JSON object per line: either a `Progress`, or, last, a `Failure`. stdout is not used: it belongs to the
source's libraries, which print what they like.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

from sdxl_engine import errors
from sdxl_engine.errors import LoadgenError, SdxlError

LOADING, WARMING_UP, RUNNING, FINISHED = "loading", "warming up", "running", "finished"

INTERVAL_S = 0.2
"""Between two heartbeats: short against a batch, long against the few microseconds that one costs."""


@dataclass(frozen=True)
class Progress:
    """How far a test is.

    Args:
        phase: `LOADING`, `WARMING_UP`, `RUNNING` or `FINISHED`.
        done: Samples whose response LoadGen has taken.
        total: Samples issued (performance) or to be issued (accuracy); 0 until it is known.
        peak_memory_bytes: Peak resident memory of the child and its own processes so far, see `Reporter`.
    """

    phase: str = LOADING
    done: int = 0
    total: int = 0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Failure:
    """An exception that ended the child.

    Args:
        kind: Name of the exception's class.
        what: Its message; of an `SdxlError` the first sentence.
        parts: The other parts of an `SdxlError`, else None.
        traceback: Of the child's thread, as Python prints it.
        phase: In which it came.
    """

    kind: str
    what: str
    parts: dict[str, str] | None
    traceback: str
    phase: str

    @classmethod
    def of(cls, error: BaseException, phase: str) -> Failure:
        """Describe `error`, raised in `phase`."""
        return cls(
            kind=type(error).__name__,
            what=error.what if isinstance(error, SdxlError) else str(error),
            parts=error.parts if isinstance(error, SdxlError) else None,
            traceback="".join(traceback.format_exception(error)),
            phase=phase,
        )

    def to_error(self, source: str) -> SdxlError:
        """The error for the parent to raise.

        An error meant for the user (a corrupt bundle, an engine that is not installed) comes back as what it
        was, with the child's traceback as a note; any other exception is a `LoadgenError` that shows its
        traceback.

        Args:
            source: Where the child's output lies.
        """
        known = getattr(errors, self.kind, None)
        if self.parts is not None and isinstance(known, type) and issubclass(known, SdxlError):
            parts = {"source" if name == "from" else name: text for name, text in self.parts.items()}
            error = known(self.what, **parts)
            error.add_note(f"in the LoadGen child, while {self.phase}:\n{self.traceback}")
            return error
        return LoadgenError(
            f"the LoadGen test failed while {self.phase}: {self.kind}: {self.what}",
            got="\n" + self.traceback.rstrip(),
            expected="a source that answers every sample",
            source=source,
            fix="correct the code at the end of the traceback and run again",
        )


def parse(line: bytes) -> Progress | Failure:
    """One line of the pipe."""
    message = json.loads(line)
    if "traceback" in message:
        return Failure(**message)
    return Progress(**message)


def peak_memory_bytes(process: int | str = "self") -> int:
    """Peak resident memory of a process, this one by default, bytes (Linux).

    From VmHWM and not from getrusage: ru_maxrss keeps, across exec, the peak of the process that forked, so
    that a child of a large parent would report its parent's memory.
    """
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def processes_below(process: int | str = "self") -> list[int]:
    """The processes that a process has started, and those that these have (Linux); some may have ended meanwhile."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, children.read_text(encoding="ascii").split())
    return found + [below for child in found for below in processes_below(child)]


class Reporter:
    """The child's end: holds the progress and writes it from its own thread, never from the measured one.

    The memory that it tells is the sum of each process's own peak: of this one, and of those that draw on other devices
    or score. That is never less than what they held together.

    Args:
        fd: Where to write; the parent reads the other end. When it is gone the child ends itself, as nobody
            is left to stop it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        # Each of these three has one writing thread at a time, so that counting needs no lock.
        self._phase, self._done, self._total = LOADING, 0, 0
        self._peaks: dict[int, int] = {}
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="heartbeat", daemon=True)
        self._ticker.start()

    def enter(self, phase: str) -> None:
        """Start a phase, and say so at once."""
        self._phase = phase
        self._send_progress()

    def expect(self, total: int) -> None:
        """Set how many samples there are to answer."""
        self._total = total

    def advance(self, count: int) -> None:
        """Count `count` more samples as answered."""
        self._done += count

    def finish(self) -> None:
        """Say that the test is over, and fall silent."""
        self._stop.set()
        self._ticker.join()
        self.enter(FINISHED)

    def fail(self, error: BaseException) -> None:
        """Say what ended the test."""
        self._stop.set()
        self._send(dataclasses.asdict(Failure.of(error, self._phase)))

    def _tick(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._send_progress()

    def _send_progress(self) -> None:
        progress = Progress(self._phase, self._done, self._total, self._peak_memory_bytes())
        self._send(dataclasses.asdict(progress))

    def _peak_memory_bytes(self) -> int:
        for process in (os.getpid(), *processes_below()):
            with contextlib.suppress(OSError):
                self._peaks[process] = max(peak_memory_bytes(process), self._peaks.get(process, 0))
        return sum(self._peaks.values())

    def _send(self, message: dict[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except BrokenPipeError:
                os._exit(1)
