"""How fast a source draws, found out before LoadGen's clock starts: an Offline query is sized by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.loadgen.in_flight import batches_in_flight, drawn

if TYPE_CHECKING:
    from sdxl_engine.loadgen.source import ImageSource

SECONDS = 1.0
"""Rounds are drawn until they have taken so long; one, if it takes longer."""
MARGIN = 1.25
"""For a round that was slow, and for what a longer run gains over one; LoadGen adds a tenth."""


def measured_qps(source: ImageSource, count: int) -> float:
    """Samples per second that a test of a source that is warmed up will not exceed.

    Too low a figure makes a test shorter than LoadGen's least duration, and INVALID; too high a one a longer test.

    Args:
        source: Draws rounds of as many whole batches as may be under way, as in a test; the fastest round counts.
        count: Captions that it may be asked for.
    """
    indices = np.arange(batches_in_flight(source) * source.batch_size, dtype=np.int64) % count
    fastest, left = float("inf"), SECONDS
    while left > 0:
        began = time.perf_counter()
        for _ in drawn(source, indices):
            pass
        seconds = time.perf_counter() - began
        fastest, left = min(fastest, seconds), left - seconds
    return MARGIN * len(indices) / fastest
