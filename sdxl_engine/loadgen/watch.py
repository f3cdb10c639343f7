"""The watchdog over a LoadGen child: reads its heartbeats, sets it limits, and says what ended it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

from sdxl_engine.child_process import how_it_ended
from sdxl_engine.errors import LoadgenError, SdxlError
from sdxl_engine.loadgen.heartbeat import FINISHED, LOADING, WARMING_UP, Failure, Progress, parse, processes_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sdxl_engine.loadgen.spec import LoadgenSpec

CHILD_LOG = "child.log"
TAIL_LINES = 40
POLL_S = 0.1
STACKS_S = 0.3
"""How long a process that hangs gets to write its threads' stacks before the next does, or all are killed."""


class Watch:
    """Follows one child process to its end.

    Args:
        child: The process, the leader of a session of its own.
        fd: The reading end of its heartbeat pipe.
        spec: Its limits.
        on_progress: Called with each heartbeat.
    """

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        fd: int,
        spec: LoadgenSpec,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._child, self._fd, self._spec, self._on_progress = child, fd, spec, on_progress
        self._last = Progress()
        self._failure: Failure | None = None
        self._buffer = b""
        self._moved_at = time.monotonic()
        os.set_blocking(fd, False)

    def wait(self) -> Progress:
        """Wait for the end of the test.

        Returns:
            The last heartbeat of a child that ran to its end.

        Raises:
            LoadgenError: the child hung, crashed, was killed or raised; it may still be alive.
            SdxlError: the child raised an error meant for the user, which is raised again here.
        """
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        while self._child.poll() is None:
            if poller.poll(POLL_S * 1e3) and not self._read():
                # The pipe is closed but the process is there: it is ending, which is limited too.
                time.sleep(POLL_S)
            self._check_limits()
        self._read()
        if self._failure is not None:
            raise self._failure.to_error(str(self._log))
        if self._child.returncode != 0 or self._last.phase != FINISHED:
            raise self._ended_early(self._child.returncode)
        return self._last

    @property
    def _log(self) -> Path:
        return self._spec.log_dir / CHILD_LOG

    def _read(self) -> bool:
        """Take in what the pipe holds; False when its other end is closed."""
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                self._take(parse(line))

    def _take(self, message: Progress | Failure) -> None:
        if isinstance(message, Failure):
            self._failure = message
            return
        starting = message.phase in {LOADING, WARMING_UP}  # one limit for both: no reset between them
        if not starting and (message.phase, message.done) != (self._last.phase, self._last.done):
            self._moved_at = time.monotonic()
        self._last = message
        self._on_progress(message)

    def _check_limits(self) -> None:
        starting = self._last.phase in {LOADING, WARMING_UP}
        limit = self._spec.start_timeout_s if starting else self._spec.stall_timeout_s
        if time.monotonic() - self._moved_at <= limit:
            return
        # Its own processes too: one that draws on another device may be what hangs. In turns, for a readable log.
        for process in (self._child.pid, *processes_below(self._child.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STACKS_S)
        if starting:
            what, got = f"the LoadGen test was not ready after {limit:g} s", f"still {self._last.phase}"
            expected, name = "a source that is loaded and warmed up by then", "start_timeout_s"
        else:
            done, total = self._last.done, self._last.total
            what = f"the LoadGen test made no progress for {limit:g} s"
            got = f"{done} of {total} samples answered, {total - done} missing"
            expected, name = (
                f"all {total} samples answered, and the end of the test soon after",
                "stall_timeout_s",
            )
        raise LoadgenError(
            what + ", and was killed",
            got=got,
            expected=expected,
            source=self._source(),
            fix=f"see in the log where its threads stood; if it only needs longer, raise {name}",
        )

    def _ended_early(self, status: int) -> SdxlError:
        got = how_it_ended(status)
        last = self._last
        fix = "see the end of the log"
        if status == -signal.SIGKILL:
            fix = "if nobody killed it, the kernel did for lack of memory: see dmesg; use a smaller batch"
        return LoadgenError(
            f"the LoadGen process ended while {last.phase}: {got}",
            got=f"{got}, {last.done} of {last.total} samples answered",
            expected="exit status 0 after the end of the test",
            source=self._source(),
            fix=fix,
        )

    def _source(self) -> str:
        """The child's log: where it is and how it ends."""
        with self._log.open(encoding="utf-8", errors="replace") as file:
            tail = deque(file, TAIL_LINES)
        if not tail:
            return f"{self._log}, which is empty"
        return f"{self._log}, which ends:\n" + "".join(f"    | {line.rstrip()}\n" for line in tail).rstrip()
