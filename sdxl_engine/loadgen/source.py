"""The protocols that an image generator, and what takes its images, meet to be driven by LoadGen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


class ImageSource(Protocol):
    """Captions in, images out, one batch at a time: what a spec's factory returns in the child process.

    The source owns the captions and everything made from them (tokens, latents); LoadGen deals in indices
    into the list of captions only. Every method is called from one thread at a time: `warm_up` and `close`
    from the main thread, `generate` from the one worker thread, and before a performance test, to find out how fast it
    is, from the main thread. An exception from any of them ends the test. A source that can draw one batch while
    LoadGen takes another is a `TwoPhaseSource`, one that draws several at a time a `ParallelSource`.
    """

    @property
    def batch_size(self) -> int:
        """Most images that one call of `generate` is asked for, 1 or more."""

    @property
    def image_count(self) -> int:
        """How many captions there are; indices lie in [0, image_count)."""

    def generate(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Draw one image per caption.

        The call returns when the images are in host memory, since LoadGen's clock stops right after it. The
        array may be reused for the next batch: LoadGen has copied it before `generate` is called again.

        Args:
            indices: (B,) int64, 1 <= B <= batch_size; the last batch of a query is as small as it falls. In a
                performance test an index may come more than once.

        Returns:
            (B, H, W, 3) uint8, C-contiguous, RGB; image i belongs to indices[i]; H and W never change.
        """

    def warm_up(self) -> None:
        """Do what only the first batch would pay for (compilation, allocation) outside of LoadGen's clock."""

    def close(self) -> None:
        """Release what the source holds; called once, after a test that ran to its end."""


class Pending(Protocol):
    """A batch that is being drawn."""

    def result(self) -> NDArray[np.uint8]:
        """Wait for the images; asked for once, on the thread that started the batch.

        Returns:
            What `ImageSource.generate` does. The array may be reused for the batch after the next: LoadGen has copied
            it before that one is started.
        """


class TwoPhaseSource(ImageSource, Protocol):
    """A source whose batches go on by themselves once started: LoadGen takes one while the next is drawn.

    LoadGen's worker calls `start` and `result` in place of `generate`, unless a subclass or the object itself replaces
    `generate` alone.
    """

    def start(self, indices: NDArray[np.int64]) -> Pending:
        """Start a batch and return without waiting for it.

        At most two batches are under way: batch k + 1 is started, then the result of batch k is asked for, and it is
        taken before batch k + 2 is started. Results are asked for in the order of the starts. A batch whose drawing
        must occupy the calling thread is better drawn in `result`: else LoadGen gets every batch one batch late.

        Args:
            indices: See `ImageSource.generate`.
        """


class ParallelSource(TwoPhaseSource, Protocol):
    """A source that draws several batches side by side, so that more than two are to be under way."""

    @property
    def batches_in_flight(self) -> int:
        """Batches under way at most: as many are started before the result of the first is asked for.

        Results are asked for in the order of the starts; what a result gave may be reused once another batch is
        started.
        """


class Sink(Protocol):
    """Takes the images of an accuracy test as they are drawn, and says what LoadGen gets and logs for each.

    Indices come in ascending order within a query. `take` is called from the one worker thread, the rest from the
    main thread. An exception from any of them ends the test.
    """

    @property
    def known(self) -> Mapping[int, NDArray[np.uint8]]:
        """Responses that an earlier part of the run has given: index to (N,) uint8. They are not drawn again."""

    def take(self, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take a batch in.

        Args:
            indices: (B,) int64.
            images: (B, H, W, 3) uint8, C-contiguous, RGB; to be copied if kept.

        Returns:
            (B, ...) uint8, C-contiguous: the response to each sample, of one size.
        """

    def finish(self) -> None:
        """Finish what is left to do; called once, after LoadGen's test ran to its end."""
