"""Where two walks part: the error of each network by itself, and what has come together on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from sdxl_engine.diff.walk import Call

TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "fp8": 2e-1, "int8": 2e-1}
"""Relative error of one network's output above which it has parted, by the coarser of two precisions. Not rounding's
own measure (the conformance suite has that) but an order of magnitude above it: docs/diff.md has figures."""


@dataclass(frozen=True)
class Errors:
    """The outputs of one call in both walks. Relative errors: L2 norm of the difference over that of A's output.

    Args:
        network: One of `spec.NETWORKS`.
        step: Denoising step, from 0; None outside of the loop.
        timestep: What the UNet was told, None outside of the loop.
        output: The one with the largest error of its own.
        own: Largest relative error where B reads what A read.
        own_row: Row of the batch where that error is largest.
        whole: Largest relative error where B goes its own way from the prompt on.
    """

    network: str
    step: int | None
    timestep: float | None
    output: str
    own: float
    own_row: int
    whole: float

    @property
    def place(self) -> str:
        """For people: `unet, step 4 (timestep 751)`."""
        return self.network if self.step is None else f"{self.network}, step {self.step} (timestep {self.timestep:g})"


def relative_error(reached: Tensor, wanted: Tensor) -> float:
    """L2 norm of the difference over that of `wanted`; infinite where a value is not a number or not finite."""
    if not reached.isfinite().all() or not wanted.isfinite().all():
        return 0.0 if reached.equal(wanted) else math.inf
    size, difference = float(wanted.double().norm()), float((reached.double() - wanted.double()).norm())
    return difference / size if size else (math.inf if difference else 0.0)


def errors_of(first: Sequence[Call], led: Sequence[Call], free: Sequence[Call]) -> list[Errors]:
    """Compare B's two walks with A's, call by call.

    Args:
        first: A's walk.
        led: B's, led by A's.
        free: B's own.

    Raises:
        EngineError: there are no calls: nothing was compared.
    """
    if not first:
        raise EngineError(
            "there is nothing to compare", got="a walk that ran no network", expected="the calls of a batch"
        )
    found = []
    for a, b, c in zip(first, led, free, strict=True):
        own = {name: relative_error(b.outputs[name], wanted) for name, wanted in a.outputs.items()}
        output = max(own, key=lambda name: own[name])
        rows = [relative_error(*pair) for pair in zip(b.outputs[output], a.outputs[output], strict=True)]
        whole = max(relative_error(c.outputs[name], wanted) for name, wanted in a.outputs.items())
        timestep = float(a.inputs["timestep"]) if a.step is not None else None
        found.append(
            Errors(a.network, a.step, timestep, output, own[output], max(range(len(rows)), key=rows.__getitem__), whole)
        )
    return found


def first_parting(errors: Sequence[Errors], tolerance: float) -> Errors | None:
    """The first call whose own error is above the tolerance."""
    return next((each for each in errors if not each.own <= tolerance), None)


def table(errors: Sequence[Errors], tolerance: float) -> list[str]:
    """Lines for people: one per call; what is above the tolerance is marked."""
    lines = [f"{'network':14}{'step':>5}{'timestep':>10}  {'own error':>10}  {'with drift':>10}  worst output"]
    for each in errors:
        step, timestep = ("", "") if each.step is None else (str(each.step), f"{each.timestep:g}")
        mark = "" if each.own <= tolerance else f"  <- above {tolerance:g}"
        figures = f"{each.own:10.2e}  {each.whole:10.2e}"
        lines.append(f"{each.network:14}{step:>5}{timestep:>10}  {figures}  {each.output}{mark}")
    return lines
