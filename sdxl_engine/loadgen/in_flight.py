"""A source's batches one after the other, some started ahead, whether the source knows two phases or not."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from sdxl_engine.loadgen.source import ImageSource, ParallelSource, Pending, TwoPhaseSource

IN_FLIGHT = 2
"""Batches that are under way at most: one that is drawn while LoadGen takes the one before."""


class Later:
    """A batch that is drawn when its result is asked for, where drawing cannot go on by itself.

    Args:
        draw: Draws it.
    """

    def __init__(self, draw: Callable[[], NDArray[np.uint8]]) -> None:
        self._draw = draw

    def result(self) -> NDArray[np.uint8]:
        """See `Pending.result`."""
        return self._draw()


def has_two_phases(source: ImageSource) -> bool:
    """Whether batches are to be asked for by `source.start`.

    Not where `generate` alone was replaced, on the object or in a subclass: what replaces it must see every batch.
    """
    start, generate = _depth(source, "start"), _depth(source, "generate")
    return start is not None and (generate is None or start <= generate)


def starter(source: ImageSource) -> Callable[[NDArray[np.int64]], Pending]:
    """What starts a batch of `source`: its `start`, or its `generate` put off until the result is asked for."""
    if has_two_phases(source):
        return cast("TwoPhaseSource", source).start
    return lambda indices: Later(partial(source.generate, indices))


def batches_in_flight(source: ImageSource) -> int:
    """Batches of `source` that are under way at most: `IN_FLIGHT`, or as many as a `ParallelSource` asks for."""
    if has_two_phases(source) and hasattr(source, "batches_in_flight"):
        return cast("ParallelSource", source).batches_in_flight
    return IN_FLIGHT


def drawn(source: ImageSource, indices: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Draw in batches: always as many started ahead of the one that is given as may be under way.

    Args:
        source: Draws.
        indices: (N,) int64; the last batch is as small as it falls.

    Yields:
        Which of the indices, and their images; in the order of the indices. The images are to be copied, if kept,
        before the next are asked for.
    """
    start, most = starter(source), batches_in_flight(source)
    ahead: deque[tuple[slice, Pending]] = deque()
    for first in range(0, len(indices), source.batch_size):
        batch = slice(first, first + source.batch_size)
        ahead.append((batch, start(indices[batch])))
        if len(ahead) == most:
            batch, pending = ahead.popleft()
            yield batch, pending.result()
    for batch, pending in ahead:
        yield batch, pending.result()


def _depth(source: object, name: str) -> int | None:
    """How far from the object an attribute is defined: 0 on itself, then its classes in the order of lookup."""
    for depth, holder in enumerate((source, *type(source).__mro__)):
        if name in getattr(holder, "__dict__", {}):
            return depth
    return None
