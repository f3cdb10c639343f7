"""How long work takes on the GPU, by CUDA events."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def refuse_capture() -> None:
    """Timing would become part of a CUDA graph.

    Raises:
        RuntimeError: the current stream is being captured.
    """
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("candidates cannot be timed while a CUDA graph is captured: tune before")


def milliseconds(run: Callable[[], object], repeats: int = 20, *, warm_up: int = 2) -> float:
    """Median time of `run` on the current stream, ms, over `repeats` runs that follow one another without a gap.

    Every run is between two events of its own. The host must be faster than the GPU: what `run` launches should take
    longer than launching it.
    """
    for _ in range(warm_up):
        run()
    events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return float(statistics.median(before.elapsed_time(after) for before, after in itertools.pairwise(events)))


def fastest(candidates: Sequence[Callable[[], object]], repeats: int = 10) -> tuple[int, list[float]]:
    """Which of `candidates` takes least time, and the times of all, ms."""
    times = [milliseconds(candidate, repeats) for candidate in candidates]
    return min(range(len(times)), key=times.__getitem__), times
