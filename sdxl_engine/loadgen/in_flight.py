"""A source's batches in two phases, start and result, whether the source knows two phases or not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from sdxl_engine.loadgen.source import ImageSource, Pending, TwoPhaseSource


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


def _depth(source: object, name: str) -> int | None:
    """How far from the object an attribute is defined: 0 on itself, then its classes in the order of lookup."""
    for depth, holder in enumerate((source, *type(source).__mro__)):
        if name in getattr(holder, "__dict__", {}):
            return depth
    return None
