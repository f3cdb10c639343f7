"""The one way in which results are held to a bound: what is said where they miss it, and what is noted where not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.figures import NAMES, distance, factor, limit
from pytest_sdxl.properties import CONFORMANCE

if TYPE_CHECKING:
    from torch import Tensor

    from pytest_sdxl.conformance.figures import Figures
    from pytest_sdxl.conformance.running import Tensors


class Comparison:
    """Compares on behalf of one test.

    Args:
        item: The test; each figure is noted among its user properties.
        precision: Of the engine under test.
    """

    def __init__(self, item: pytest.Item, precision: str) -> None:
        self._item = item
        self.precision = precision

    def __call__(
        self, what: object, got: Tensors, expected: Tensors, floors: dict[str, Figures], against: str = "the reference"
    ) -> None:
        """Fail the test unless every output is within the bounds that follow from its floor.

        Args:
            what: Network and inputs, for the message.
            got: The engine's outputs; those that are not expected are not looked at.
            expected: By name.
            floors: By name.
            against: What `expected` is.
        """
        __tracebackhide__ = True
        wrong = [
            text
            for name in expected
            for text in self._compared(f"{what}, output {name}", got[name], expected[name], floors[name], against)
        ]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)

    def _compared(self, what: str, got: Tensor, expected: Tensor, floor: Figures, against: str) -> list[str]:
        bad = ~got.isfinite()
        if bad.any():
            row = int(bad.flatten(1).any(1).nonzero()[0])
            return [f"{what}: {int(bad.sum())} of {bad.numel()} values are not finite, the first in row {row}"]
        bounds = limit(floor, self.precision)
        wrong = []
        for name, worst in distance(got, expected).items():
            bound, words = getattr(bounds, name), NAMES[name]
            self.note(what, words, worst.value, bound)
            if not worst.value <= bound:
                times = factor(name, self.precision)
                wrong.append(
                    f"{what}: {words} to {against} {worst.value:.2g}, at most {bound:.2g} "
                    f"({times:g} x {bound / times:.2g}, the rounding of {self.precision} measured on this network); "
                    f"worst in row {worst.row} of {len(got)}"
                )
        return wrong

    def note(self, what: str, figure: str, value: float, bound: float) -> None:
        """Keep a figure with its bound for the reports; only builtin types get through pytest-xdist."""
        record = {"what": what, "figure": figure, "value": value, "bound": bound}
        self._item.user_properties.append((CONFORMANCE, json.dumps(record)))
