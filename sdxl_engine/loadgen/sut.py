"""The system under test and the sample library, as LoadGen sees them: queries in, responses out.

Lives in the child process only: it imports `mlperf_loadgen`.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import mlperf_loadgen
import numpy as np

from sdxl_engine.errors import LoadgenError
from sdxl_engine.loadgen.in_flight import drawn, has_two_phases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.loadgen.source import ImageSource, Sink

    Query = tuple[NDArray[np.uint64], NDArray[np.int64]]


def keep_indices(indices: Sequence[int]) -> None:
    """Load or unload samples: nothing to do, the library is an index into the source's own captions."""


def hand_over(ids: NDArray[np.uint64], responses: NDArray[np.uint8]) -> int:
    """Give LoadGen one batch of responses.

    LoadGen copies the bytes before it returns (they then wait in its log queue), so `responses` must live
    through the call and may be overwritten after it.

    Args:
        ids: (B,) LoadGen's response ids.
        responses: (B, ...) uint8, C-contiguous.

    Returns:
        How many responses were given.
    """
    start, size = responses.ctypes.data, responses[0].nbytes
    mlperf_loadgen.QuerySamplesComplete(
        [
            mlperf_loadgen.QuerySampleResponse(response, start + position * size, size)
            for position, response in enumerate(ids.tolist())
        ]
    )
    return len(ids)


class BatchingSut:
    """Answers LoadGen's queries in batches from one worker thread.

    At most two batches are under way: while LoadGen takes one, a `TwoPhaseSource` draws the next; any other source
    draws the next only then; a `ParallelSource` says how many it draws at a time. That bounds the memory of an accuracy
    run: LoadGen keeps a copy of each response in the
    queue of its log, which it empties about once a second, so a burst of all 5000 images of 3 MB would lie there
    together (15 GB). What is left is a source that outruns the disk within one query; a smaller
    `performance_sample_count` makes smaller queries. Batches are answered in the order in which they were started,
    and all of a query's before the next query's first is started.

    Args:
        source: Draws the images.
        sink: Takes the images and says what LoadGen gets; None gives it the images.
        on_query: Called with the size of each query, on LoadGen's thread.
        on_batch: Called with the count of responses that LoadGen took, on the worker thread.
        on_failure: Called with an exception of the worker, on the worker thread; must not return, as LoadGen
            would wait for ever for the samples that are left.
    """

    def __init__(
        self,
        source: ImageSource,
        sink: Sink | None = None,
        *,
        on_query: Callable[[int], None],
        on_batch: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._source, self._sink = source, sink
        self._on_query, self._on_batch, self._on_failure = on_query, on_batch, on_failure
        self._queries: queue.SimpleQueue[Query | None] = queue.SimpleQueue()
        self._image_shape: tuple[int, ...] | None = None
        self._worker = threading.Thread(target=self._work, name="sut-worker")

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """End the worker once it has answered all queries that were issued."""
        self._queries.put(None)
        self._worker.join()

    def issue(self, samples: Sequence[mlperf_loadgen.QuerySample]) -> None:
        """Take a query and return at once: this is LoadGen's own thread, which holds the GIL meanwhile."""
        ids = np.fromiter((sample.id for sample in samples), np.uint64, len(samples))
        indices = np.fromiter((sample.index for sample in samples), np.int64, len(samples))
        self._on_query(len(samples))
        self._queries.put((ids, indices))

    def flush(self) -> None:
        """Nothing is ever held back: the ragged end of a query is a batch of its own."""

    def _work(self) -> None:
        try:
            while (query := self._queries.get()) is not None:
                ids, indices = query if self._sink is None else self._answer_known(*query, self._sink)
                for batch, images in drawn(self._source, indices):
                    self._hand_over(ids[batch], indices[batch], images)
        except BaseException as error:  # noqa: BLE001  whatever ends the worker must end the test
            self._on_failure(error)

    def _hand_over(self, ids: NDArray[np.uint64], indices: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
        self._check(images, len(indices))
        responses = images if self._sink is None else self._sink.take(indices, images)
        self._on_batch(hand_over(ids, responses))

    def _answer_known(
        self, ids: NDArray[np.uint64], indices: NDArray[np.int64], sink: Sink
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Answer what the sink knows already; gives what is left to draw, in ascending order."""
        order = np.argsort(indices, kind="stable")
        ids, indices = ids[order], indices[order]
        known = np.array([index in sink.known for index in indices.tolist()], bool)
        if known.any():
            responses = np.stack([sink.known[index] for index in indices[known].tolist()])
            self._on_batch(hand_over(ids[known], responses))
        return ids[~known], indices[~known]

    def _check(self, images: object, count: int) -> None:
        """Check the images of one batch; wrong ones would be read past their end, or logged as garbage."""
        height_width: tuple[object, ...] = ("H", "W") if self._image_shape is None else self._image_shape[:2]
        expected = f"uint8 ({', '.join(map(str, (count, *height_width, 3)))}), C-contiguous"
        if not isinstance(images, np.ndarray):
            raise self._wrong(f"an object of type {type(images).__name__}", expected)
        shape = images.shape
        fits = len(shape) == 4 and shape[0] == count and shape[3] == 3 and images.size > 0
        if fits and self._image_shape is None:
            self._image_shape = shape[1:]
        if not fits or shape[1:] != self._image_shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
            order = "C-contiguous" if images.flags.c_contiguous else "not C-contiguous"
            raise self._wrong(f"{images.dtype} ({', '.join(map(str, shape))}), {order}", expected)

    def _wrong(self, got: str, expected: str) -> LoadgenError:
        return LoadgenError(
            "the source under test returned a wrong batch",
            got=got,
            expected=expected,
            source=f"{type(self._source).__qualname__}.{'start' if has_two_phases(self._source) else 'generate'}",
            fix="return one RGB image per index, as a C-contiguous uint8 array",
        )
