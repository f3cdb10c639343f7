"""What the kernels' wrappers ask of their tensors, and what they know of the device."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
"""Largest finite float8_e4m3fn; larger values saturate to it."""
INT32_MAX = 2**31 - 1
_INTERPRETER_PROGRAMS = 3
"""Programs of a persistent kernel in Triton's interpreter: few, so that each takes several tiles."""


@cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of the GPU, by which persistent kernels size their grid."""
    if device.type != "cuda":
        return _INTERPRETER_PROGRAMS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def need_tensor(
    name: str,
    tensor: torch.Tensor,
    *,
    shape: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    like: torch.Tensor | None = None,
) -> None:
    """Refuse a tensor that a kernel would misread.

    Args:
        name: What the wrapper's caller knows it as.
        tensor: To be checked; it must be contiguous and start at a multiple of 16 bytes.
        shape: What it must have, if one is asked for.
        dtypes: One of which it must have.
        like: A tensor on whose device it must be.

    Raises:
        ValueError: It is not so; the text says what was got and what was expected.
    """
    if shape is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    if dtypes is not None and tensor.dtype not in dtypes:
        raise ValueError(f"{name} is {tensor.dtype}, expected {' or '.join(map(str, dtypes))}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}, expected a contiguous tensor")
    if tensor.data_ptr() % 16:
        raise ValueError(f"{name} starts {tensor.data_ptr() % 16} bytes after a multiple of 16, expected none")
    if like is not None and tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}, expected {like.device} as the input")


def need_scalar(name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    """Refuse what is not one float32 on the device of `like`.

    Raises:
        ValueError: It is not so.
    """
    if tensor.numel() != 1 or tensor.dtype != torch.float32 or tensor.device != like.device:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, "
            f"expected one torch.float32 on {like.device}"
        )


def output_for(
    out: torch.Tensor | None, shape: Sequence[int], like: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """The output tensor: the one given, checked, or a new one; FP8 with a scale, float16 without.

    Args:
        out: Preallocated, or None.
        shape: Of the output.
        like: An input, for the device.
        scale: One float32: what an FP8 output is to be multiplied by to get its value back. None for float16.

    Raises:
        ValueError: `out` or `scale` cannot be used.
    """
    dtype = torch.float16 if scale is None else FP8
    if scale is not None:
        need_scalar("scale", scale, like)
    if out is None:
        return torch.empty(tuple(shape), dtype=dtype, device=like.device)
    need_tensor("out", out, shape=shape, dtypes=(dtype,), like=like)
    return out


def largest_power_of_two_dividing(*numbers: int, most: int) -> int:
    """The largest power of two, at most `most`, that divides them all (0 is divided by any)."""
    power = most
    while any(number % power for number in numbers):
        power //= 2
    return power
