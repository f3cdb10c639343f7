"""Kernels without sums over pixels: LayerNorm, pending sums. All are bound by memory traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.checks import need_pending, need_tensor
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, scale_or_any

if TYPE_CHECKING:
    from torch import Tensor

    from sdxl_engine.engines.cuda.layers import Norm, Pending

_ELEMENTS = 4096
"""Elements of one program, about: 8 KB of fp16."""


def layer_norm(stream: Tensor, norm: Norm, shift: Tensor, scale: Tensor | None = None) -> Tensor:
    """LayerNorm of `stream + shift`.

    Args:
        stream: (M, C) fp16 contiguous.
        norm: Scale and shift, (C,).
        shift: (C,) fp32.
        scale: (1,) fp32: what the result is divided by, and saturated, to become fp8; None for fp16.

    Returns:
        (M, C) fp16 or fp8. Floor: 4 bytes per element, 3 with fp8. On an NVIDIA H100 80GB HBM3 (torch 2.11.0+cu130,
        Triton 3.6, 2026-11-28) M, C = 16384, 1280 take 36 us in fp16 and 32 us in fp8, 65536, 640 take 59 and 55 us:
        70 and 59, 85 and 69 % of the 3.35 TB/s that its memory has on the data sheet.

    Raises:
        ValueError: Another shape, type or layout.
    """
    lines, channels = stream.shape
    need_tensor("stream", stream, dtypes=(torch.float16,))
    for name, tensor in (("weight", norm.weight), ("bias", norm.bias), ("shift", shift)):
        need_tensor(name, tensor, shape=(channels,), dtypes=(torch.float32,), like=stream)
    out = torch.empty_like(stream, dtype=stream.dtype if scale is None else E4M3)
    # SDXL's widths, 640 and 1280, are a power of two and a quarter of it: in two blocks no lane is idle.
    block = 1 << (channels.bit_length() - 1)
    rest = triton.next_power_of_2(channels - block) if channels > block else 0
    # A row and a warp per program: its sums need no other warp, and there are most programs to hide what they wait for.
    _layer_norm_kernel[(lines,)](
        stream,
        norm.weight,
        norm.bias,
        shift,
        out,
        scale_or_any(scale, stream),
        channels,
        norm.eps,
        scale is not None,
        MOST=MOST,
        BLOCK=block,
        REST=rest,
        num_warps=1,
    )
    return out


def add_up(pending: Pending | Tensor) -> Tensor:
    """Add a pending sum up, in the memory of its value; a tensor is left as it is.

    Returns:
        Like `pending.value`. Floor: 4 bytes per element, 6 with a residual. On an NVIDIA H200 (torch 2.11.0, Triton
        3.6, `python benchmarks/kernels.py`, 2026-11-28), with a shift and a residual, 16x128x128x320 take 0.1288 ms and
        8x512x512x256 0.7460 ms: 3.91 and 4.32 TB/s, 81 and 90 % of the 4.8 that its memory has on the data sheet.

    Raises:
        ValueError: Another shape, type or layout.
    """
    if isinstance(pending, torch.Tensor):
        return pending
    need_pending(pending)
    value, shift, residual = pending.value, pending.shift, pending.residual
    if shift is None and residual is None:
        return value
    channels = value.shape[-1]
    pixels = value.numel() // channels // value.shape[0]
    block = min(512, triton.next_power_of_2(channels))
    tile = max(1, _ELEMENTS // block)
    _add_up_kernel[triton.cdiv(channels, block), triton.cdiv(pixels, tile), value.shape[0]](
        value,
        shift if shift is not None else value,
        shift.stride(0) if shift is not None and shift.dim() == 2 else 0,
        residual if residual is not None else value,
        pixels,
        channels,
        shift is not None,
        residual is not None,
        BLOCK=block,
        TILE=tile,
    )
    return value


@triton.jit
def _layer_norm_kernel(
    stream,
    weight,
    bias,
    shift,
    out,
    scale,
    channels,
    eps,
    FP8: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
    REST: tl.constexpr,
):
    """A row, in a block of BLOCK channels and one of up to REST."""
    begin = tl.program_id(0).to(tl.int64) * channels
    columns = tl.arange(0, BLOCK)
    x = tl.load(stream + begin + columns).to(tl.float32) + tl.load(shift + columns)
    total = tl.sum(x, axis=0)
    if REST > 0:
        more = BLOCK + tl.arange(0, REST)
        there = more < channels
        z = tl.load(stream + begin + more, mask=there, other=0.0).to(tl.float32)
        z += tl.load(shift + more, mask=there, other=0.0)
        total += tl.sum(z, axis=0)
    mean = total / channels
    x -= mean
    squares = tl.sum(x * x, axis=0)
    if REST > 0:
        z = tl.where(there, z - mean, 0.0)
        squares += tl.sum(z * z, axis=0)
    factor = 1.0 / tl.sqrt(squares / channels + eps)
    divisor = 1.0
    if FP8:
        divisor = tl.load(scale)
    y = (x * factor * tl.load(weight + columns) + tl.load(bias + columns)) / divisor
    if FP8:
        y = tl.clamp(y, -MOST, MOST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + begin + columns, y.to(out.dtype.element_ty))
    if REST > 0:
        y = z * factor * tl.load(weight + more, mask=there, other=0.0)
        y = (y + tl.load(bias + more, mask=there, other=0.0)) / divisor
        if FP8:
            y = tl.clamp(y, -MOST, MOST, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out + begin + more, y.to(out.dtype.element_ty), mask=there)


@triton.jit
def _add_up_kernel(
    value,
    shift,
    shift_stride,
    residual,
    pixels,
    channels,
    HAS_SHIFT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    image = tl.program_id(2)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lines = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = columns < channels
    mask = (lines < pixels)[:, None] & inside[None, :]
    places = (image.to(tl.int64) * pixels + lines.to(tl.int64))[:, None] * channels + columns[None, :]
    x = tl.load(value + places, mask=mask, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        x += tl.load(shift + image * shift_stride + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        x += tl.load(residual + places, mask=mask, other=0.0).to(tl.float32)
    tl.store(value + places, x.to(value.dtype.element_ty), mask=mask)
