"""How far two tensors are apart, and how far they may be.

A bound is so many times (`FACTORS`) what rounding alone does: the floor. It is measured on the very network and inputs,
of the torch modules in the engine's precision against the float32 reference; for fp32, of that reference against the
same modules in float64. docs/conformance.md has measured floors and what engines reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from sdxl_engine.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

FACTORS = {"fp32": 32.0, "fp16": 8.0, "bf16": 8.0}
"""How many floors an engine may be off, by its precision. Another order of summation moves a result by one floor or so.
fp32 has more room because fast convolutions are legitimate: torch's own, which changes its algorithm from two images
on, is up to 14 floors off. In half precision sums are kept in fp32 and what rounds is the storing, which no algorithm
multiplies. docs/conformance.md has the figures."""

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of rounding one number. No floor is taken to be less: the result has to be stored."""

EIGHT_BITS = 12**-0.5
"""Root mean square, in levels, of rounding an image to 8 bits; no bound on images is tighter."""


@dataclass(frozen=True)
class Figures:
    """The distance of a result from what it should be.

    Args:
        relative: Length of the difference by that of the expected values.
        cosine: Cosine distance, 1 - cos of the angle between the two; a common factor does not change it.
        largest: Largest difference of an element, by the root mean square of the expected values: it shows one wrong
            pixel, which in a large image the other two do not.
    """

    relative: float
    cosine: float
    largest: float


NAMES = {"relative": "relative error", "cosine": "cosine distance", "largest": "largest error of an element"}


class Worst(NamedTuple):
    """A figure of the row where it is largest; NaN is larger than any number."""

    value: float
    row: int


def distance(got: Tensor, expected: Tensor) -> dict[str, Worst]:
    """The figures of `Figures`, each of its worst row.

    Args:
        got: (rows, ...), any floating-point dtype.
        expected: The same shape, on any device.
    """
    given = got.flatten(1).double()
    wanted = expected.to(got.device).flatten(1).double()
    tiny = torch.finfo(torch.float64).tiny
    length = torch.linalg.vector_norm
    norm = length(wanted, dim=1).clamp_min(tiny)
    difference = given - wanted
    # Half the squared distance of the unit vectors: 1 - cos, without the cancellation.
    turned = given / length(given, dim=1, keepdim=True).clamp_min(tiny) - wanted / norm[:, None]
    by_row = {
        "relative": length(difference, dim=1) / norm,
        "cosine": turned.square().sum(1) / 2,
        "largest": difference.abs().amax(1) / (norm / wanted.shape[1] ** 0.5),
    }
    found = {name: torch.max(values, dim=0) for name, values in by_row.items()}
    return {name: Worst(float(value), int(row)) for name, (value, row) in found.items()}


def figures(got: Tensor, expected: Tensor) -> Figures:
    """`distance` without the rows."""
    return Figures(**{name: worst.value for name, worst in distance(got, expected).items()})


def limit(floor: Figures, precision: str) -> Figures:
    """The bounds that follow from a floor. The cosine distance grows with the square of an error.

    Raises:
        UsageError: the precision has no floor: nothing here runs the modules in it, so a bound would be a guess.
    """
    roundoff = roundoff_of(precision)
    least = Figures(roundoff, roundoff**2 / 2, roundoff)
    return Figures(
        **{name: factor(name, precision) * max(getattr(floor, name), getattr(least, name)) for name in NAMES}
    )


def factor(figure: str, precision: str) -> float:
    """What the floor of one of `Figures` is multiplied with."""
    times = FACTORS[precision]
    return times**2 if figure == "cosine" else times


def roundoff_of(precision: str) -> float:
    """Unit roundoff of a precision that has one.

    Raises:
        UsageError: it has none.
    """
    if precision not in UNIT_ROUNDOFF:
        raise UsageError(
            f"there are no conformance bounds for {precision}",
            got=precision,
            expected=" or ".join(UNIT_ROUNDOFF),
            source="the engine's precision",
            fix="judge it by the accuracy of its images: pytest -m accuracy",
        )
    return UNIT_ROUNDOFF[precision]


def image_limit(floor_levels: float, precision: str) -> float:
    """The bound on the root mean square difference of two images, in levels of 255, from its floor."""
    return max(FACTORS[precision] * floor_levels, EIGHT_BITS)
