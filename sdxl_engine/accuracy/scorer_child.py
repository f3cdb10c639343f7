"""The process that a `ProcessScorer` starts: `python -m sdxl_engine.accuracy.scorer_child SOCKET MEMORY`.

Both are file descriptors. Requests and answers are pickles, one answer to each request. The first request is a
callable that gives the networks, its answer their `Metric`; every other one is where in the memory a block of images
begins, their shape and type, and their captions, its answer what `Scorer.score` gives. In the place of an
answer an `SdxlError` may come.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.child_process import begin
from sdxl_engine.errors import AccuracyError, SdxlError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Options of glibc's `mallopt`."""


def main(arguments: list[str]) -> int:
    """Answer requests until the other end of the socket is closed."""
    link_fd, memory_fd = begin(arguments)
    # One heap for all threads: else each that resizes keeps what its largest images took. What is large and freed
    # while loading goes back to the system; what each image takes stays: fresh pages are a third of a resize's time.
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, 1 << 20)
    with socket.socket(fileno=link_fd) as link, link.makefile("rb") as requests:
        scorer = _outcome(_loaded, requests)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)
        link.sendall(pickle.dumps(scorer.metric if isinstance(scorer, Scorer) else scorer))
        memory = Memory(memory_fd)
        while True:
            try:
                offset, shape, dtype, captions = pickle.load(requests)  # noqa: S301  of our own parent
            except EOFError:
                return 0
            link.sendall(pickle.dumps(_outcome(scorer.score, memory.array(offset, shape, dtype), captions)))


class Memory:
    """The parent's memory, which grows."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None

    def array(self, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The array that begins at a byte of it."""
        if self._map is None or os.fstat(self._fd).st_size > len(self._map):
            self._map = mmap.mmap(self._fd, 0)
        return np.ndarray(shape, dtype, self._map, offset)


def _loaded(requests: BinaryIO) -> Scorer:
    """A scorer on the networks that the first request gives."""
    return Scorer(pickle.load(requests)())  # noqa: S301  of our own parent


def _outcome(work: Callable[..., Any], *arguments: object) -> Any:
    """What `work` gives, or the error for the parent to raise."""
    try:
        return work(*arguments)
    except SdxlError as error:
        error.add_note(f"in the scorer's process:\n{traceback.format_exc()}")
        return error
    except Exception as error:  # noqa: BLE001  raised in the parent
        fix = "correct the code at the end of the traceback"
        if type(error).__name__ == "OutOfMemoryError":
            fix = "score on the CPU (--sdxl-metrics-device=cpu, or sdxl-engine --metrics-device cpu) or on another GPU"
        return AccuracyError(
            f"the scorer failed: {type(error).__name__}: {error}",
            got="\n" + traceback.format_exc().rstrip(),
            source="the scorer's process",
            fix=fix,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
