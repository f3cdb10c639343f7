"""What the kernels' wrappers ask of their tensors, and what they know of the device."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdxl_engine.engines.cuda.layers import Pending

INT32_MAX = 2**31 - 1
_INTERPRETER_PROGRAMS = 3
"""Programs of a persistent kernel in Triton's interpreter: few, so that each takes several tiles."""


@cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of the GPU, by which persistent kernels size their grid."""
    if device.type != "cuda":
        return _INTERPRETER_PROGRAMS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def kind_of(device: torch.device) -> str:
    """The kind of GPU, for which what was tuned holds."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


def need_tensor(
    name: str,
    tensor: torch.Tensor,
    *,
    shape: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    like: torch.Tensor | None = None,
    aligned: bool = False,
) -> None:
    """Refuse a tensor that a kernel would misread.

    Args:
        name: What the wrapper's caller knows it as.
        tensor: To be checked; it must be contiguous.
        shape: What it must have, if one is asked for.
        dtypes: One of which it must have.
        like: A tensor on whose device it must be.
        aligned: Whether it must start at a multiple of 16 bytes, as the tensor memory accelerator asks.

    Raises:
        ValueError: It is not so; the text says what was got and what was expected.
    """
    if shape is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    if dtypes is not None and tensor.dtype not in dtypes:
        raise ValueError(f"{name} is {tensor.dtype}, expected {' or '.join(map(str, dtypes))}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}, expected a contiguous tensor")
    if aligned and tensor.data_ptr() % 16:
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


def need_pending(pending: Pending) -> None:
    """Refuse a pending sum that a kernel would misread.

    Raises:
        ValueError: A part of it has not the shape, the type or the layout that `Pending` says.
    """
    value, shift = pending.value, pending.shift
    if value.dim() != 4:
        raise ValueError(f"value has shape {tuple(value.shape)}, expected (B, H, W, C)")
    need_tensor("value", value, dtypes=(torch.float16,))
    if pending.residual is not None:
        need_tensor("residual", pending.residual, shape=value.shape, dtypes=(torch.float16,), like=value)
        if pending.residual.data_ptr() == value.data_ptr():
            raise ValueError("residual is value itself, in whose memory the sum is written")
    if shift is None:
        return
    if shift.shape not in {(value.shape[3],), (value.shape[0], value.shape[3])} or shift.stride(-1) != 1:
        raise ValueError(
            f"shift has shape {tuple(shift.shape)} and strides {shift.stride()}, expected ({value.shape[3]},) or "
            f"({value.shape[0]}, {value.shape[3]}) with channels side by side"
        )
    if shift.dtype not in {torch.float16, torch.float32} or shift.device != value.device:
        raise ValueError(
            f"shift is {shift.dtype} on {shift.device}, expected torch.float16 or torch.float32 on {value.device}"
        )
