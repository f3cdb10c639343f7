"""Start the child process that builds one plan, follow it, and say what ended it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine import errors
from sdxl_engine.child_process import child_environment, how_it_ended
from sdxl_engine.engines.tensorrt.names import log_path
from sdxl_engine.errors import EngineError, SdxlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sdxl_engine.engines.tensorrt.job import BuildJob

# -P: the current folder must not decide what is imported.
CHILD = (sys.executable, "-P", "-m", "sdxl_engine.engines.tensorrt.child")


@dataclass(frozen=True)
class Built:
    """What a child that ended well says.

    Args:
        manifest: As JSON.
        peak_host_bytes: Peak resident memory of the child.
    """

    manifest: dict[str, Any]
    peak_host_bytes: int


def build_in_child(job: BuildJob, tell: Callable[[str], None], command: Sequence[str] = CHILD) -> Built:
    """Build one plan in a process of its own, so that running out of memory ends that process alone.

    Args:
        job: What to build.
        tell: Called with a line for each phase of the build.
        command: The child's, without its last argument; a test puts another in its place.

    Raises:
        SdxlError: what the child raised.
        EngineError: it was killed or crashed.
    """
    reading, writing = os.pipe()
    output = log_path(job.plan).with_suffix(".child.log")
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as log, os.fdopen(reading, "rb") as pipe:
        try:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the child.
            child = subprocess.Popen(
                [*command, str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,
                env=child_environment(),
            )
        finally:
            os.close(writing)
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(json.dumps(job.to_json()).encode())
            last = _follow(pipe, job.key.network, tell)
            status = child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if "error" in last:
        raise _raised(last["error"])
    if status != 0 or "manifest" not in last:
        raise _ended(job, status, output)
    output.unlink()
    return Built(last["manifest"], last["peak_host_bytes"])


def _follow(pipe: Iterator[bytes], network: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The child's last message; phases are told as they come."""
    last: dict[str, Any] = {}
    for line in pipe:
        last = json.loads(line)
        if "phase" in last:
            tell(f"{network}: {last['phase']}")
    return last


def _raised(error: dict[str, Any]) -> SdxlError:
    kind: type[SdxlError] = getattr(errors, error["kind"])
    return kind(error["what"], **{"source" if name == "from" else name: text for name, text in error["parts"].items()})


def _ended(job: BuildJob, status: int, output: object) -> EngineError:
    network = job.key.network
    if status == -signal.SIGKILL:
        return EngineError(
            f"{network}: the process that built the plan was killed",
            got="SIGKILL; if nobody sent it, the kernel did for lack of memory: see dmesg",
            expected="exit status 0",
            source=output,
            fix=f"a smaller batch for this network (--batch-size {network}=N), a smaller --workspace, "
            "or a machine with more memory",
        )
    return EngineError(
        f"{network}: the process that built the plan crashed",
        got=how_it_ended(status),
        expected="exit status 0",
        source=output,
    )
