"""One image source on several devices: a pipeline in a process for each, and every batch to whichever is free."""

from __future__ import annotations

from collections import deque
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from sdxl_engine.drawing_process import PER_PROCESS, DrawingProcess
from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from sdxl_engine.loadgen.source import Pending


class DataParallel:
    """Hands batches to processes, one per device, and gives their images back; a `ParallelSource`.

    Processes and not threads: a pipeline that draws operation by operation (a ragged batch, `graphs` off, an engine
    that cannot be captured) keeps Python busy the whole batch long, and the lock of one interpreter would share one
    core out among all GPUs. A process that crashes is known by its device, and its CUDA context is its own. Only
    indices and shapes travel; images lie in memory that both processes map.

    A batch goes to the process with the least to do, and waits until one has less than `PER_PROCESS`: the faster of
    unlike devices gets more of them, though results are given in the order of the starts. All is done in the calls of
    one thread, LoadGen's worker's: `result` hands out what waits while it waits itself. The images of a batch lie in
    its process's memory until the next batch is started.

    Args:
        factory: `module:callable` that gives a process's source; called with the options of its device.
        options: By process: its device, and the factory's keyword arguments, which are pickled.

    Raises:
        SdxlError: what a factory raised.
        EngineError: a process failed or died, or two sources differ.
    """

    def __init__(self, factory: str, options: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._processes: list[DrawingProcess] = []
        self._waiting: deque[_Batch] = deque()
        self._taken: list[_Batch] = []
        try:
            for device, arguments in options:
                self._processes.append(DrawingProcess(device, factory, arguments))
            # Started first and asked then: they load side by side.
            sizes = self._one_answer_each("loading its pipeline")
        except BaseException:
            self._end()
            raise
        if len(set(sizes.values())) > 1:
            self._end()
            raise EngineError(
                "the pipelines of a run's devices differ",
                got="; ".join(f"{process.device}: batch size {a}, {b} images" for process, (a, b) in sizes.items()),
                expected="one batch size and one count of images",
                source=factory,
            )
        self.batch_size, self.image_count = next(iter(sizes.values()))

    @property
    def batches_in_flight(self) -> int:
        """See `ParallelSource`."""
        return PER_PROCESS * len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the processes, in the order of the devices."""
        return [process.pid for process in self._processes]

    def warm_up(self) -> None:
        """All processes at once; see `ImageSource.warm_up`."""
        for process in self._processes:
            process.ask_to_warm_up()
        self._one_answer_each("warming up")

    def start(self, indices: NDArray[np.int64]) -> Pending:
        """See `TwoPhaseSource.start`."""
        for batch in self._taken:
            batch.give_back()
        self._taken.clear()
        batch = _Batch(self, indices)
        self._waiting.append(batch)
        self._hand_out()
        return batch

    def generate(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """One batch on one device; the images are the caller's own."""
        return self.start(indices).result().copy()

    def close(self) -> None:
        """Close every pipeline and end the processes."""
        try:
            for process in self._processes:
                process.ask_to_close()
            self._one_answer_each("closing its pipeline")
        finally:
            self._end()

    def images_of(self, batch: _Batch) -> NDArray[np.uint8]:
        """Wait for a batch; meanwhile take what others have drawn, and hand out what waits."""
        while batch.images is None:
            busy = [process.link for process in self._processes if process.batches]
            for process in self._answering(busy):
                process.take_images()
            self._hand_out()
        self._taken.append(batch)
        return batch.images

    def _hand_out(self) -> None:
        while self._waiting:
            process = min(self._processes, key=lambda process: len(process.batches))
            if len(process.batches) == PER_PROCESS:
                return
            process.draw(self._waiting.popleft())

    def _one_answer_each(self, doing: str) -> dict[DrawingProcess, Any]:
        """What every process answers; the first error to come ends the wait for the others."""
        answers: dict[DrawingProcess, Any] = {}
        while left := [process.link for process in self._processes if process not in answers]:
            for process in self._answering(left):
                answers[process] = process.answer(doing)
        return {process: answers[process] for process in self._processes}

    def _answering(self, links: Sequence[Connection]) -> list[DrawingProcess]:
        """Wait for the first of some processes to answer or to end; gives all that have."""
        ready = wait(links)
        return [process for process in self._processes if process.link in ready]

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _Batch:
    """A `Pending` of a `DataParallel`."""

    def __init__(self, source: DataParallel, indices: NDArray[np.int64]) -> None:
        self._source = source
        self.indices = indices
        self.images: NDArray[np.uint8] | None = None
        self.process: DrawingProcess | None = None
        self.slot = -1

    def result(self) -> NDArray[np.uint8]:
        """See `Pending.result`."""
        return self._source.images_of(self)

    def give_back(self) -> None:
        """Let its process draw over the images."""
        assert self.process is not None
        self.process.free.add(self.slot)
