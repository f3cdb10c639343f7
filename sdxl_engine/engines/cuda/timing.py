"""How long work takes on the GPU, by CUDA events, and which of several ways is fastest."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MARGIN = 0.02
"""How much faster than the first candidate another must be, to be taken in its place."""
_SCREENING, _ROUNDS = 2, 8
_HOPELESS = 1.15
"""Candidates that took so many times the shortest time in the first rounds are not timed any further."""


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
    return float(statistics.median(_timed([run] * repeats)))


def graphed_milliseconds(launches: Sequence[Callable[[], object]], repeats: int = 20, *, least: int = 4) -> float:
    """Median time of one of `launches`, ms, taken in turn from one CUDA graph: small kernels outrun the host otherwise.

    Args:
        launches: Each starts work on the current stream, as a capture allows.
        repeats: Of the graph, which holds each of them.
        least: Launches in the graph.
    """
    for launch in launches:
        launch()
    rounds = -(-least // len(launches))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    return milliseconds(graph.replay, repeats) / (rounds * len(launches))


def fastest(candidates: Sequence[Callable[[], object]], *, rounds: int = _ROUNDS) -> tuple[int, list[float]]:
    """Which of `candidates` to use: the first, unless another is faster by more than `MARGIN`.

    The candidates take turns, there and back over several rounds, so that a GPU whose clock drifts under load slows all
    of them alike; a candidate's time is the median over the rounds. After two rounds those that are far behind are left
    out.

    Args:
        candidates: Each launches one way of doing the same work. One that raises an exception is none, such as a
            configuration that does not fit this GPU.
        rounds: How often each is timed; an even number.

    Returns:
        The index, and the time of each, ms; infinity of those that do not run. Times of those left out are of the first
        rounds.

    Raises:
        RuntimeError: none of them runs, the error of the last one is the cause; or a CUDA graph is being captured.
    """
    refuse_capture()
    running: list[int] = []
    failure: Exception | None = None
    for index, candidate in enumerate(candidates):
        try:
            candidate()
            running.append(index)
        except Exception as error:  # noqa: BLE001 - what a candidate raises that does not fit is not known
            failure = error
    if not running:
        raise RuntimeError(f"none of {len(candidates)} candidates runs") from failure
    found: dict[int, list[float]] = {index: [] for index in running}
    for count in (min(_SCREENING, rounds), rounds - _SCREENING):
        order = [index for turn in range(count) for index in running[:: -1 if turn % 2 else 1]]
        for index, time in zip(order, _timed([candidates[index] for index in order]), strict=True):
            found[index].append(time)
        least = min(min(times) for times in found.values())
        running = [index for index in running if min(found[index]) <= _HOPELESS * least]
    times = [statistics.median(found[index]) if index in found else math.inf for index in range(len(candidates))]
    best = min(running, key=times.__getitem__)
    return (0 if 0 in running and times[0] * (1.0 - MARGIN) <= times[best] else best), times


def _timed(runs: Sequence[Callable[[], object]]) -> list[float]:
    """The time of each of `runs`, ms, which are all queued before any is waited for."""
    events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(len(runs) + 1)]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    events[0].record()
    for run, event in zip(runs, events[1:], strict=True):
        run()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]
