"""How fast a source draws, found out before LoadGen's clock starts: an Offline query is sized by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.loadgen.in_flight import IN_FLIGHT, batches_in_flight, starter

if TYPE_CHECKING:
    from sdxl_engine.loadgen.source import ImageSource

SECONDS = 1.0
"""Batches are drawn until they have taken so long; one, if it takes longer."""
MARGIN = 1.25
"""For what overlapping batches gain over one at a time, and for a batch that came late; LoadGen adds a tenth."""


def measured_qps(source: ImageSource, count: int) -> float:
    """Samples per second that a test of a source that is warmed up will not exceed.

    Too low a figure makes a test shorter than LoadGen's least duration, and INVALID; too high a one a longer test.

    Args:
        source: Draws whole batches, one at a time; the fastest counts.
        count: Captions that it may be asked for.
    """
    start = starter(source)
    indices = np.arange(source.batch_size, dtype=np.int64) % count
    fastest, left = float("inf"), SECONDS
    while left > 0:
        began = time.perf_counter()
        start(indices).result()
        seconds = time.perf_counter() - began
        fastest, left = min(fastest, seconds), left - seconds
    side_by_side = max(1, batches_in_flight(source) // IN_FLIGHT)
    return MARGIN * side_by_side * source.batch_size / fastest
