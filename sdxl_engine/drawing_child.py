"""The process that a `DrawingProcess` starts: `python -m sdxl_engine.drawing_child CONNECTION MEMORY`.

Both are file descriptors. The first request is sys.path, the device, the factory of the source and its arguments, its
answer batch size and image count. `WARM_UP` and `CLOSE` are answered with None. Every other request is a batch, a slot
of the memory and (B,) int64 indices, its answer bytes of a slot, shape and dtype of the images; batches are answered in
their order. In the place of an answer an `SdxlError` may come, the last.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, cast

import numpy as np

from sdxl_engine.child_process import begin
from sdxl_engine.drawing_process import CLOSE, WARM_UP
from sdxl_engine.errors import EngineError, SdxlError
from sdxl_engine.loadgen.in_flight import IN_FLIGHT, starter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sdxl_engine.loadgen.source import ImageSource, Pending


def main(arguments: list[str]) -> int:
    """Answer requests until the last, or until the other end is closed."""
    link_fd, memory_fd = begin(arguments)
    with Connection(link_fd) as link:
        device = ""
        try:
            sys.path[:], device, factory, options = link.recv()
            _make_current(device)
            source = _made(factory)(**options)
            link.send((source.batch_size, source.image_count))
            _serve(link, source, _Slots(memory_fd, source.batch_size))
        except EOFError:
            pass
        except SdxlError as error:
            error.add_note(f"in the process that draws on {device}:\n{traceback.format_exc()}")
            link.send(error)
        except Exception as error:  # noqa: BLE001  raised in the parent
            link.send(_failed(error, device))
    return 0


def _serve(link: Connection, source: ImageSource, slots: _Slots) -> None:
    """Answer every request but the first; a batch is started, if there is one, before the one before is waited for."""
    start = starter(source)
    started: deque[tuple[int, Pending]] = deque()
    while True:
        if started and (len(started) == IN_FLIGHT or not link.poll()):
            slot, batch = started.popleft()
            link.send(slots.put(slot, batch.result()))
            continue
        request = link.recv()
        if request in (WARM_UP, CLOSE):
            (source.warm_up if request == WARM_UP else source.close)()
            link.send(None)
            if request == CLOSE:
                return
        else:
            slot, indices = request
            started.append((slot, start(indices)))


class _Slots:
    """Memory for images, in slots as large as a full batch of the first ones.

    Args:
        fd: The memory, which grows.
        batch_size: Of the source.
    """

    def __init__(self, fd: int, batch_size: int) -> None:
        self._fd, self._batch_size = fd, batch_size
        self._slot_bytes = 0
        self._map: mmap.mmap | None = None

    def put(self, slot: int, images: NDArray[np.uint8]) -> tuple[int, tuple[int, ...], np.dtype[np.uint8]]:
        """Copy a batch to a slot; what LoadGen's worker would say of a wrong one, it says in the parent.

        Raises:
            EngineError: it is no array, or does not fit.
        """
        fits = isinstance(images, np.ndarray) and images.size > 0
        if fits and not self._slot_bytes:
            most = images[0].nbytes * self._batch_size
            self._slot_bytes = -(-most // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        if not fits or images.nbytes > self._slot_bytes:
            got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise EngineError(
                "a pipeline returned a wrong batch",
                got=got,
                expected=f"a uint8 array of images, {self._slot_bytes} bytes or less",
            )
        end = (slot + 1) * self._slot_bytes
        if os.fstat(self._fd).st_size < end:
            os.ftruncate(self._fd, end)
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self._fd, 0)
        np.copyto(np.ndarray(images.shape, images.dtype, self._map, slot * self._slot_bytes), images)
        return self._slot_bytes, images.shape, images.dtype


def _made(factory: str) -> Callable[..., ImageSource]:
    module, _, name = factory.partition(":")
    return cast("Callable[..., ImageSource]", getattr(importlib.import_module(module), name))


def _make_current(device: str) -> None:
    """Make a CUDA device this process's current one, or CUDA would make a context on the first one too."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        import torch

        # One that is not here is for the engine's entry to refuse.
        if int(number or 0) < torch.cuda.device_count():
            torch.cuda.set_device(int(number or 0))


def _failed(error: Exception, device: str) -> EngineError:
    fix = "correct the code at the end of the traceback"
    if type(error).__name__ == "OutOfMemoryError":
        fix = "a smaller batch, or score elsewhere: --sdxl-metrics-device, or sdxl-engine --metrics-device"
    return EngineError(
        f"drawing on {device} failed: {type(error).__name__}: {error}",
        got="\n" + traceback.format_exc().rstrip(),
        expected="a pipeline that draws every batch",
        source=f"process {os.getpid()}, device {device}",
        fix=fix,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
