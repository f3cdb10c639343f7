"""What a kernel wrote against float64: its one rounding, and what its arithmetic before that may be off by."""

import torch

# Relative half of the last place, and half of the smallest step.
ROUNDING = {torch.float8_e4m3fn: (2.0**-4, 2.0**-10), torch.float16: (2.0**-11, 2.0**-25)}
AT_A_TIME = 2**22
"""Numbers compared at a time: those of the largest shapes take GB in float64, and several tests run on one GPU."""


def slices(tensor):
    """Of the rows of a tensor, as many at a time as make AT_A_TIME numbers, or one row."""
    rows = max(1, AT_A_TIME * len(tensor) // tensor.numel())
    return [slice(first, first + rows) for first in range(0, len(tensor), rows)]


def assert_rounded(out, exact, off=0.0, name=""):
    """Asserts that `out` is `exact` rounded to its type, saturated if that is fp8.

    Args:
        out: fp16 or fp8 (E4M3).
        exact: float64, of the same shape.
        off: How far off what was rounded may be: one number, or one for each.
        name: Of what is compared, for the message.
    """
    half, least = ROUNDING[out.dtype]
    if out.dtype == torch.float8_e4m3fn:
        exact = exact.clamp(-448, 448)
    excess = ((out.double() - exact).abs() / (exact.abs() * half + least + off * (1 + half))).max()
    assert excess <= 1, f"{name}{': ' if name else ''}{excess:.3f} of the bound"
