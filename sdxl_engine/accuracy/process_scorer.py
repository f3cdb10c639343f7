"""Scores images in a process of its own, which the networks live in."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import pickle
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sdxl_engine.child_process import child_environment, end, why_it_ended
from sdxl_engine.errors import AccuracyError, SdxlError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import Metric, MetricNetworks


class ProcessScorer:
    """A `Scorer` in a child process; it gives the same bits, and raises the same errors.

    Images go through memory that both processes map and that has no name: nothing is left of it when both have ended,
    however they did, and the size of /dev/shm, 64 MB in many containers, does not bound it. Images that lie in a `room`
    are there already, others are copied to it. The child ends when this
    process does, since its socket is closed then.

    Args:
        load: Gives the networks; called in the child, so it must be picklable (a `functools.partial` of a function of
            a module).

    Attributes:
        metric: What the images are scored with; it comes from the child, so the networks are loaded there alone.
        pid: Of the child.

    Raises:
        SdxlError: what `load` raised.
        AccuracyError: `load` raised another exception, or the child died.
    """

    def __init__(self, load: Callable[[], MetricNetworks]) -> None:
        request = pickle.dumps(load)
        self._rooms: list[tuple[int, NDArray[np.uint8]]] = []
        self._copies: NDArray[np.uint8] | None = None
        self._memory_fd = os.memfd_create("sdxl-images")
        self._link, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), self._memory_fd)
            # -P: the current folder must not decide what is imported. The child stays in this process's group, so
            # that a kill of the group reaches it too.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "sdxl_engine.accuracy.scorer_child", *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                env=child_environment(),
            )
        self.pid = self._child.pid
        self._answers = self._link.makefile("rb")
        try:
            self.metric = cast("Metric", self._answer(request, "loading its networks"))
        except BaseException:
            self.close()
            raise

    def room(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `ImageScorer.room`. The memory is given back once this object and the caller have let go of it."""
        offset = os.fstat(self._memory_fd).st_size
        # An empty mapping cannot be; an empty block is refused in the child.
        size = -(-max(math.prod(shape), 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self._memory_fd, offset + size)
        room = np.ndarray(shape, np.uint8, mmap.mmap(self._memory_fd, size, offset=offset))
        self._rooms.append((offset, room))
        return room

    def score(
        self, images: NDArray[np.uint8], captions: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Score a block; see `Scorer.score`.

        Raises:
            AccuracyError: see `Scorer.score`; or the child raised another exception or died.
        """
        offset = self._offset(images)
        if offset is None:
            if self._copies is None or images.nbytes > self._copies.nbytes:
                self._copies = self.room((images.nbytes,))
            offset = self._offset(self._copies)
            np.copyto(np.ndarray(images.shape, images.dtype, self._copies), images)
        request = pickle.dumps((offset, images.shape, images.dtype, list(captions)))
        return cast(
            "tuple[NDArray[np.float64], NDArray[np.float32]]",
            self._answer(request, f"scoring {len(images)} images"),
        )

    def close(self) -> None:
        """End the child; a thread that waits for its scores gets an error."""
        with contextlib.suppress(OSError):  # the child is gone already
            self._link.shutdown(socket.SHUT_RDWR)
        self._answers.close()
        self._link.close()
        end(self._child)
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd, self._copies = -1, None
            self._rooms.clear()

    def _offset(self, images: NDArray[Any]) -> int | None:
        """Where in the shared memory images begin that lie in one of its rooms side by side."""
        for offset, room in self._rooms if images.flags.c_contiguous else ():
            begin = images.ctypes.data - room.ctypes.data
            if 0 <= begin <= room.nbytes - images.nbytes:
                return offset + begin
        return None

    def _answer(self, request: bytes, what: str) -> Any:
        """What the child gives back for a request, which has it do `what`.

        Raises:
            SdxlError: see `score`.
        """
        try:
            self._link.sendall(request)
            answer = pickle.load(self._answers)  # noqa: S301  of our own child
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._ended(what) from None
        if isinstance(answer, SdxlError):
            raise answer
        return answer

    def _ended(self, what: str) -> AccuracyError:
        """The error for a child that does not answer any more."""
        how, fix = why_it_ended(self._child)
        return AccuracyError(
            f"the scorer's process ended while {what}: {how}",
            got=how,
            expected="a process that lives until all images are scored",
            source=f"process {self.pid}",
            fix=fix,
        )
