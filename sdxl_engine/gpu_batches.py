"""Batches on a GPU: one CUDA graph per batch size, and images that travel to the host while the next batch is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Draw = Callable[[Tensor], Tensor]

IN_FLIGHT = 2
"""Batches that may be started and not yet taken."""


class GpuBatches:
    """Starts batches on a GPU without waiting for any.

    What is where:

    - The compute stream, one of its own for a capturable engine, else the default stream, takes the row numbers to
      the GPU, runs all that `draw` enqueues, and copies the images into the batch's slot.
    - The copy stream waits for that, on the GPU, and copies the slot to pinned host memory.
    - The two slots (`_Slot`) take turns and live as long as this object: row numbers and images in pinned memory,
      images on the GPU, each for the largest batch. A batch's images stay in its slot until the batch after the next
      is started.
    - The graphs share one memory pool, which holds everything that `draw` allocates: they run on one stream, one after
      the other, and their images are out of the pool before the next one runs.

    A size that comes for the first time is drawn eagerly, which is the warm-up that a capture needs; the second time it
    is captured, and from then on replayed. So a size that comes once, the ragged end of a run, is never captured.

    Args:
        device: The GPU.
        batch_size: Most images at a time.
        capturable: Whether the engine only enqueues work on torch's current stream; see `Capabilities.capturable`.
        graphs: Whether to capture.
    """

    def __init__(self, device: torch.device, batch_size: int, *, capturable: bool, graphs: bool) -> None:
        self._device, self._graphs_wanted = device, graphs and capturable
        self._compute = _new_stream(device) if capturable else torch.cuda.default_stream(device)
        self._copy = _new_stream(device)
        # What the engine has put on the caller's stream until now, its weights, comes first.
        self._compute.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._compute):
            self._rows = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._slots = [_Slot(batch_size) for _ in range(IN_FLIGHT)]
        self._turn = 0
        self._drawn_eagerly: set[int] = set()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def captured(self) -> tuple[int, ...]:
        """The batch sizes that there is a graph for, in the order of capture."""
        return tuple(self._graphs)

    def passes(self) -> int:
        """How often a size must be drawn until a further batch of it pays nothing more: eagerly, and as a graph."""
        return 2 if self._graphs_wanted else 1

    def start(self, rows: NDArray[np.int64], draw: Draw) -> Copied:
        """Start a batch and the copy of its images.

        Args:
            rows: (B,), 1 <= B <= batch_size.
            draw: (B,) int64 on the GPU to (B, H, W, 3) uint8 on the GPU; enqueues work on the current stream and does
                not wait for it. Once its size is captured it is not called again.

        Raises:
            EngineError: what `draw` does cannot be captured.
        """
        count = len(rows)
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % IN_FLIGHT
        slot.reuse(rows)
        with torch.cuda.stream(self._compute):
            self._rows[:count].copy_(slot.rows[:count], non_blocking=True)
            images = self._draw(count, draw)
            slot.make_room(images)
            slot.images[:count].copy_(images)
            slot.drawn.record(self._compute)
        with torch.cuda.stream(self._copy):
            self._copy.wait_event(slot.drawn)
            slot.host[:count].copy_(slot.images[:count], non_blocking=True)
            slot.copied.record(self._copy)
        return Copied(slot, count)

    def forget(self) -> None:
        """Drop the graphs: what they were captured from has changed. Work that the caller has enqueued comes first."""
        self._drawn_eagerly.clear()
        if self._graphs:
            self._compute.synchronize()
            self._graphs.clear()
            # A pool that no graph holds any more cannot be captured into again.
            self._pool = torch.cuda.graph_pool_handle()
        self._compute.wait_stream(torch.cuda.current_stream(self._device))

    def close(self) -> None:
        """Wait for what is under way and give all memory back."""
        self._copy.synchronize()
        self.forget()
        self._slots.clear()

    def _draw(self, count: int, draw: Draw) -> Tensor:
        """The images of the first `count` rows, on the compute stream."""
        rows = self._rows[:count]
        if not self._graphs_wanted or count not in self._drawn_eagerly:
            self._drawn_eagerly.add(count)
            return draw(rows)
        if count not in self._graphs:
            self._graphs[count] = self._capture(rows, draw)
        graph, images = self._graphs[count]
        graph.replay()
        return images

    def _capture(self, rows: Tensor, draw: Draw) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: a thread that scores images on the same GPU may allocate meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"):
                images = draw(rows)
        except RuntimeError as error:
            # The end of a capture that was broken off raises too; the first error says why.
            raise EngineError(
                f"a batch of {len(rows)} cannot be captured in a CUDA graph",
                got=error.__context__ or error,
                expected="an engine and pipeline methods that only enqueue work on torch's current CUDA stream: "
                "no .item(), no copy to the host",
                fix="--sdxl-graphs=off, or sdxl-engine --graphs off",
            ) from error
        return graph, images


class Copied:
    """A batch that is on its way to the host.

    Args:
        slot: Where it arrives.
        count: How many images it has.
    """

    def __init__(self, slot: _Slot, count: int) -> None:
        self._slot, self._count, self._batch = slot, count, slot.batch

    def result(self) -> NDArray[np.uint8]:
        """Wait until the images are there; see `Pending.result`.

        Raises:
            RuntimeError: two later batches have been started, and the images are overwritten.
        """
        if self._slot.batch != self._batch:
            raise RuntimeError(f"the images are gone: {IN_FLIGHT} later batches have been started")
        self._slot.copied.synchronize()
        images: NDArray[np.uint8] = self._slot.host[: self._count].numpy()
        return images


class _Slot:
    """The memory of one batch in flight.

    Attributes:
        batch: Counts the batches that the slot has had.
        rows: (batch_size,) int64, pinned.
        images: (batch_size, H, W, 3) uint8 on the GPU; none before the first batch, which says H and W.
        host: The same, pinned.
        drawn: Recorded when `images` is complete.
        copied: Recorded when `host` is; waiting for it lets the processor sleep.
    """

    images: Tensor
    host: Tensor

    def __init__(self, batch_size: int) -> None:
        self.batch = 0
        self.rows = torch.zeros(batch_size, dtype=torch.int64, pin_memory=True)
        self.drawn = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def reuse(self, rows: NDArray[np.int64]) -> None:
        """Take the row numbers of the next batch, once the one before is out of the slot."""
        self.copied.synchronize()
        self.batch += 1
        self.rows[: len(rows)] = torch.from_numpy(rows)

    def make_room(self, images: Tensor) -> None:
        """Allocate for the images of a full batch like this one, the first time."""
        if not hasattr(self, "images"):
            shape = (len(self.rows), *images.shape[1:])
            self.images = torch.empty(shape, dtype=images.dtype, device=images.device)
            self.host = torch.empty(shape, dtype=images.dtype, pin_memory=True)


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
