"""Run one LoadGen test in a child process and return what its logs say.

The parent imports neither LoadGen nor numpy nor torch, and outlives whatever the test does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from sdxl_engine.child_process import child_environment
from sdxl_engine.errors import LoadgenError, UnavailableError, UsageError
from sdxl_engine.loadgen.outcome import read_result
from sdxl_engine.loadgen.watch import CHILD_LOG, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sdxl_engine.loadgen.heartbeat import Progress
    from sdxl_engine.loadgen.spec import LoadgenSpec
    from sdxl_engine.results import LoadgenResult

SPEC_FILE = "spec.json"


def run_loadgen(spec: LoadgenSpec, progress: Callable[[Progress], None] | None = None) -> LoadgenResult:
    """Run one LoadGen test.

    The log folder is made if it is not there. What an older test left in it (`mlperf_log_*`, `child.log`,
    `spec.json`) is removed first, so that no figure of an older test can be taken for this one's; other files
    stay.

    Args:
        spec: What to run.
        progress: Called in this process with each heartbeat, about five a second. An exception from it ends
            the test, and so does a KeyboardInterrupt at any time: the child and all of its own children are
            killed.

    Returns:
        The result. An INVALID performance run is returned with `valid=False`; settings that are not in effect
        as asked for, and LoadGen's own errors, are in `errors`.

    Raises:
        UnavailableError: LoadGen is not installed.
        LoadgenError: the test crashed, hung or raised, or another test runs in the same log folder.
        AssetError: LoadGen's detail log is missing or corrupt.
        SdxlError: what the source raised in the child, if it was an error meant for the user.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise UnavailableError(
            "LoadGen is not installed",
            got="no module mlperf_loadgen",
            expected="mlcommons-loadgen of the profile in use",
            source=sys.executable,
            fix="pip install 'pytest-sdxl[loadgen]'",
        )
    spec = dataclasses.replace(spec, log_dir=spec.log_dir.absolute())
    with _fresh_folder(spec.log_dir) as lock:
        spec_file = spec.log_dir / SPEC_FILE
        spec.write(spec_file)
        last = _watched_child(spec, spec_file, lock, progress or (lambda _: None))
        return read_result(spec, last.peak_memory_bytes)


@contextlib.contextmanager
def _fresh_folder(folder: Path) -> Iterator[int]:
    """Make `folder`, clear it of an older test's files and lock it; yields the lock's descriptor."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "the log folder cannot be made",
            got=error.strerror,
            expected="a folder to write to",
            source=folder,
        ) from None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LoadgenError(
                "another LoadGen test is running in the same log folder",
                got="a folder in use",
                expected="one test at a time per folder",
                source=folder,
                fix="wait for it to end, or choose another folder",
            ) from None
        for stale in [*folder.glob("mlperf_log_*"), folder / CHILD_LOG, folder / SPEC_FILE]:
            stale.unlink(missing_ok=True)
        yield lock
    finally:
        os.close(lock)


def _watched_child(spec: LoadgenSpec, spec_file: Path, lock: int, progress: Callable[[Progress], None]) -> Progress:
    """Start the child and follow it to its end; nothing of its session is left after this, error or not."""
    reading, writing = os.pipe()
    try:
        with (spec.log_dir / CHILD_LOG).open("wb") as log:
            # -P: the current folder must not decide what is imported. -u: the last words of a process that is
            # killed must be in its log. A session of its own: one kill reaches the source's own processes
            # too, and Ctrl-C reaches the parent alone. The child holds the folder's lock as long as it lives,
            # even without a parent.
            child = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "sdxl_engine.loadgen.child", str(spec_file), str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writing, lock),
                start_new_session=True,
                env=child_environment(),
            )
        try:
            os.close(writing)
            writing = -1
            return Watch(child, reading, spec, progress).wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
