"""Processes of our own: the environment they start in, how they end with their parent, and how they ended."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

ENDS_WITHIN_S = 10.0
"""How long a process gets to end by itself once its link is closed."""


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child finds the very package that is running here."""
    root = str(Path(__file__).resolve().parents[1])
    if root == sysconfig.get_path("purelib"):
        # Installed: found anyway, and site-packages must not come before the standard library.
        return dict(os.environ)
    # A relative entry meant the folder that this process was started in, which need not be the current one.
    # abspath and not Path.absolute: the same spelling as in sys.path.
    relative = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    entries = [os.path.abspath(entry) for entry in relative]  # noqa: PTH100
    paths = [root, *(entry for entry in entries if entry in sys.path)]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}


def begin(arguments: list[str]) -> tuple[int, int]:
    """What a process of ours does first: it can be asked for its stacks, leaves Ctrl-C to its parent, and ends with it.

    Args:
        arguments: Of its command line: the descriptors of its end of the link and of the memory that both share.

    Returns:
        Both, which its own children do not get.
    """
    faulthandler.enable()
    # LoadGen's watchdog asks for all threads' stacks before it kills.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C reaches the whole group; it is for the parent to end this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link_fd, memory_fd = map(int, arguments)
    os.set_inheritable(link_fd, False)
    os.set_inheritable(memory_fd, False)
    threading.Thread(target=end_with_the_parent, args=(link_fd,), daemon=True).start()
    return link_fd, memory_fd


def end_with_the_parent(fd: int) -> None:
    """End this process, whatever it does, once the other end of a socket is closed: by the parent or by its end.

    Runs in a thread of its own.
    """
    poller = select.poll()
    poller.register(fd, 0)  # a hang-up is always reported
    poller.poll()
    os._exit(0)


def end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a process whose link is closed; kill it if it does not end by itself."""
    try:
        child.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def why_it_ended(child: subprocess.Popen[bytes]) -> tuple[str, str]:
    """How a process ended that does not answer any more, and what to do about it; both for an error."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(ENDS_WITHIN_S)
    status = child.poll()
    if status == -signal.SIGKILL:
        return how_it_ended(status), "if nobody killed it, the kernel did for lack of memory: see dmesg"
    return "it closed its link" if status is None else how_it_ended(status), "see what it wrote last"


def how_it_ended(status: int) -> str:
    """The return code of a `subprocess.Popen` in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
