"""What an engine holds, it gives back."""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.cases import usual

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from sdxl_engine.engines.base import Engine

pytestmark = pytest.mark.conformance

CYCLES = 3
KEPT = 0.25
"""Largest share of what an engine says it holds that memory may grow by from one cycle to the next."""

LEAST = 8 * 2**20
"""Bytes that it may grow by however little the engine holds: allocators and drivers take memory in blocks."""


def test_memory_is_told_until_it_is_closed(open_another: Callable[[], Engine]) -> None:
    """An open engine says how much it holds, a closed one that it holds nothing; closing it again does nothing."""
    engine = open_another()
    held = engine.memory()
    engine.close()
    left = engine.memory()
    engine.close()
    assert held.host + held.device > 0, f"an open engine says that it holds nothing: {held}"
    assert left.host + left.device == 0, f"a closed engine says that it holds {left}, expected nothing"


def test_memory_is_given_back(open_another: Callable[[], Engine], inputs: Inputs, compare: Comparison) -> None:
    """Opened, run and closed three times in one process, it leaves no more of it behind each time."""
    from pytest_sdxl.conformance.memory import in_use
    from pytest_sdxl.conformance.running import run

    given, levels, said = inputs.of(usual("unet")), [], 0
    for _ in range(CYCLES):
        engine = open_another()
        run(engine, "unet", given)
        held = engine.memory()
        said = held.host + held.device
        on = engine.device
        engine.close()
        del engine
        gc.collect()
        levels.append(in_use(on))
    for kind in levels[0]:
        # What leaks does so each time; other growth, as of a library that loads late, comes once.
        growth = min(after[kind] - before[kind] for before, after in itertools.pairwise(levels))
        bound = max(KEPT * said, LEAST)
        compare.note(f"memory ({kind}) after close", "bytes more each time", float(growth), bound)
        if growth > bound:
            pytest.fail(
                f"{kind} memory grows by {growth / 2**20:.1f} MiB each time the engine is opened, run and closed, at "
                f"most {bound / 2**20:.1f} MiB (it said that it held {said / 2**20:.1f} MiB)",
                pytrace=False,
            )
