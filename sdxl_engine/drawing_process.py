"""A process that draws on one device, as its parent sees it; `drawing_child.py` is the process."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections import deque
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sdxl_engine.child_process import child_environment, end, why_it_ended
from sdxl_engine.errors import EngineError, SdxlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PER_PROCESS = 3
"""Batches that a process has at a time: one that its device draws, one that is started behind it, and one that lies
ready for when the first is done, so that the device never waits for an answer's way there and back."""

WARM_UP, CLOSE = "warm up", "close"
"""Requests; every other one is a batch."""


class Drawn(Protocol):
    """A batch: what to draw, and where its images are put."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8] | None
    process: DrawingProcess | None
    slot: int


class DrawingProcess:
    """Starts the process and talks to it.

    Images lie in memory without a name, in slots of one size, which the child sets with its first images. The child
    stays in this process's group, so that a kill of the group reaches it; it ends when this process does.

    Args:
        device: Where it draws, for messages too; a CUDA device is made its current one.
        factory: See `DataParallel`.
        arguments: The factory's.

    Attributes:
        link: To wait on: readable when there is an answer, or when the process has ended.
        batches: Handed to the process and not drawn yet, in their order.
        free: Slots that no batch has.
    """

    def __init__(self, device: str, factory: str, arguments: Mapping[str, Any]) -> None:
        self.device = device
        self.batches: deque[Drawn] = deque()
        self._slots = 0
        self.free: set[int] = set()
        self._memory: mmap.mmap | None = None
        self._memory_fd = os.memfd_create("sdxl-drawn")
        self.link, theirs = Pipe()
        with theirs:
            fds = (theirs.fileno(), self._memory_fd)
            # -P: the current folder must not decide what is imported; what sys.path holds here comes with the request.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "sdxl_engine.drawing_child", *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                env=child_environment(),
            )
        self.pid = self._child.pid
        self._send((list(sys.path), device, factory, dict(arguments)), "starting")

    def ask_to_warm_up(self) -> None:
        """Have the source warm up; there is one answer."""
        self._send(WARM_UP, "warming up")

    def ask_to_close(self) -> None:
        """Have the source close; there is one answer, the last."""
        self._send(CLOSE, "closing its pipeline")

    def draw(self, batch: Drawn) -> None:
        """Hand it a batch."""
        if not self.free:
            self.free.add(self._slots)
            self._slots += 1
        batch.process, batch.slot = self, min(self.free)
        self.free.remove(batch.slot)
        self.batches.append(batch)
        self._send((batch.slot, batch.indices), "drawing")

    def take_images(self) -> None:
        """Take the answer to the first of `batches`, which must be there, and give the batch its images.

        Raises:
            SdxlError: see `answer`.
        """
        slot_bytes, shape, dtype = self.answer("drawing")
        batch = self.batches.popleft()
        start = slot_bytes * batch.slot
        if self._memory is None or len(self._memory) < start + slot_bytes:
            # Arrays of batches before keep the older mapping of the same memory alive.
            self._memory = mmap.mmap(self._memory_fd, 0)
        batch.images = np.ndarray(shape, dtype, self._memory, start)

    def answer(self, doing: str) -> Any:
        """The next answer, waited for.

        Raises:
            SdxlError: the source raised it.
            EngineError: the source raised another exception, or the process ended.
        """
        try:
            answer = self.link.recv()
        except (EOFError, OSError):
            raise self._ended(doing) from None
        if isinstance(answer, SdxlError):
            raise answer
        return answer

    def end(self) -> None:
        """End the process, and give the memory back."""
        self.link.close()
        end(self._child)
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd, self._memory = -1, None

    def _send(self, request: object, doing: str) -> None:
        try:
            self.link.send(request)
        except OSError:
            raise self._ended(doing) from None

    def _ended(self, doing: str) -> EngineError:
        """The error for a process that does not answer any more."""
        how, fix = why_it_ended(self._child)
        return EngineError(
            f"the process that draws on {self.device} ended while {doing}: {how}",
            got=how,
            expected="a process that lives as long as the run",
            source=f"process {self.pid}, device {self.device}",
            fix=fix,
        )
