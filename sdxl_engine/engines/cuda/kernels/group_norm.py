"""GroupNorm over NHWC, with what stands before and after it: the sum that it normalises, a concatenation, SiLU.

Three kernels: sums per channel and chunk of pixels; from them a scale and an offset per image and channel; and
`silu(x * scale + offset)`. All sums are in fp32, in an order that depends on the shape of one image alone, so results
are deterministic and the same in any batch. Groups may hold channels of both inputs of a concatenation.

Floor, by memory traffic: 2 bytes per element read twice and written once, and 4 more per element and pass for a
residual and the sum that is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, scale_or_any
from sdxl_engine.engines.cuda.layers import Norm, Pending

if TYPE_CHECKING:
    from torch import Tensor

_TILE = 32
"""Pixels that a program reads at a time."""


def group_norm(
    x: Tensor | Pending,
    norm: Norm,
    skip: Tensor | None = None,
    *,
    silu: bool,
    keep: bool = True,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalise `x`, or the concatenation of `x` and `skip`, by groups of channels.

    Args:
        x: (B, H, W, C) fp16 contiguous, or a sum that is not added up yet.
        norm: Scale and shift of C + C' channels.
        skip: (B, H, W, C') fp16 contiguous: its channels come after those of `x`.
        silu: Whether `silu` follows.
        keep: Whether the sum is needed afterwards; without a residual it is not written then.
        scale: (1,) fp32: what the result is divided by, and saturated, to become fp8; None for fp16.

    Returns:
        (B, H, W, C + C') fp16 or fp8, and the sum (B, H, W, C) fp16: in the memory of `x.value` if it was pending, and that
        value itself if it is not kept.
    """
    pending = x if isinstance(x, Pending) else Pending(x)
    value = pending.value
    batch, height, width, own = value.shape
    channels = own + (0 if skip is None else skip.shape[-1])
    if channels != len(norm.weight) or channels % norm.groups:
        raise ValueError(f"got {channels} channels, expected {len(norm.weight)} in {norm.groups} groups")
    pixels = height * width
    chunk = _chunk(pixels)
    chunks = triton.cdiv(pixels, chunk)
    sums = torch.empty(batch, chunks, 2, channels, dtype=torch.float32, device=value.device)
    written = pending.residual is not None or (keep and pending.shift is not None)
    _sum(value, pending if written else Pending(value), sums, 0, chunk, store=written)
    if skip is not None:
        _sum(skip, Pending(skip), sums, own, chunk, store=False)
    factors = torch.empty(batch, 2, channels, dtype=torch.float32, device=value.device)
    size = channels // norm.groups
    late = pending.shift if pending.shift is not None and not written else None
    _factors_kernel[batch, norm.groups](
        sums,
        factors,
        norm.weight,
        norm.bias,
        late if late is not None else sums,
        late.stride(0) if late is not None and late.dim() == 2 else 0,
        chunks,
        channels,
        size,
        own,
        1.0 / (pixels * size),
        pixels,
        norm.eps,
        late is not None,
        CHUNKS=min(16, triton.next_power_of_2(chunks)),
        BLOCK=triton.next_power_of_2(size),
        num_warps=1 if size <= 32 else 4,
    )
    dtype = value.dtype if scale is None else E4M3
    out = torch.empty(batch, height, width, channels, dtype=dtype, device=value.device)
    _apply(value, factors, out, 0, scale, silu=silu)
    if skip is not None:
        _apply(skip, factors, out, own, scale, silu=silu)
    return out, value


def _chunk(pixels: int) -> int:
    """Pixels whose sums are made by one program: of one image alone, so that sums do not depend on the batch."""
    return min(max(triton.next_power_of_2(pixels) // 16, 64), 4096)


def _block(channels: int) -> int:
    for block in (128, 64):
        if channels % block == 0:
            return block
    return min(64, triton.next_power_of_2(channels))


def _sum(value: Tensor, pending: Pending, sums: Tensor, at: int, chunk: int, *, store: bool) -> None:
    batch, chunks, _, total = sums.shape
    channels = value.shape[-1]
    block = _block(channels)
    shift, residual = pending.shift, pending.residual
    _sum_kernel[triton.cdiv(channels, block), chunks, batch](
        value,
        shift if shift is not None else value,
        shift.stride(0) if shift is not None and shift.dim() == 2 else 0,
        residual if residual is not None else value,
        sums,
        value.shape[1] * value.shape[2],
        channels,
        total,
        at,
        chunk,
        shift is not None,
        residual is not None,
        store,
        BLOCK=block,
        TILE=_TILE,
    )


def _apply(value: Tensor, factors: Tensor, out: Tensor, at: int, scale: Tensor | None, *, silu: bool) -> None:
    channels, total = value.shape[-1], out.shape[-1]
    pixels = value.shape[1] * value.shape[2]
    block = _block(channels)
    rows = 2 * _TILE
    _apply_kernel[triton.cdiv(channels, block), triton.cdiv(pixels, rows), value.shape[0]](
        value,
        factors,
        out,
        scale_or_any(scale, value),
        pixels,
        channels,
        total,
        at,
        silu,
        scale is not None,
        MOST=MOST,
        BLOCK=block,
        TILE=rows,
    )


@triton.jit
def _sum_kernel(
    value,
    shift,
    shift_stride,
    residual,
    sums,
    pixels,
    channels,
    total,
    at,
    chunk,
    HAS_SHIFT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    STORE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Adds up the pending sum, in place of `value`, and sums it and its squares over the pixels of one chunk."""
    number, image = tl.program_id(1), tl.program_id(2)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < channels
    plain = tl.zeros((TILE, BLOCK), dtype=tl.float32)
    squares = tl.zeros((TILE, BLOCK), dtype=tl.float32)
    if HAS_SHIFT:
        added = tl.load(shift + image * shift_stride + columns, mask=inside, other=0.0).to(tl.float32)
    base = image.to(tl.int64) * pixels * channels
    for begin in range(number * chunk, min(number * chunk + chunk, pixels), TILE):
        lines = begin + tl.arange(0, TILE)
        places = base + lines[:, None].to(tl.int64) * channels + columns[None, :]
        mask = (lines < pixels)[:, None] & inside[None, :]
        x = tl.load(value + places, mask=mask, other=0.0).to(tl.float32)
        if HAS_SHIFT:
            x += added[None, :]
        if HAS_RESIDUAL:
            x += tl.load(residual + places, mask=mask, other=0.0).to(tl.float32)
        if STORE:
            rounded = x.to(value.dtype.element_ty)
            tl.store(value + places, rounded, mask=mask)
            x = rounded.to(tl.float32)
        x = tl.where(mask, x, 0.0)
        plain += x
        squares += x * x
    target = sums + (image * tl.num_programs(1) + number) * 2 * total + at + columns
    tl.store(target, tl.sum(plain, axis=0), mask=inside)
    tl.store(target + total, tl.sum(squares, axis=0), mask=inside)


@triton.jit
def _factors_kernel(
    sums,
    factors,
    weight,
    bias,
    late,
    late_stride,
    chunks,
    channels,
    size,
    own,
    share,
    pixels,
    eps,
    HAS_LATE: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One group of one image: mean and variance, to a scale and an offset per channel.

    `late` is a constant per channel that the sums were made without.
    """
    image, group = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    inside = columns < size
    where = group * size + columns
    plain = tl.zeros((BLOCK,), dtype=tl.float32)
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, chunks, CHUNKS):
        lines = begin + tl.arange(0, CHUNKS)
        mask = (lines < chunks)[:, None] & inside[None, :]
        places = sums + ((image * chunks + lines) * 2 * channels)[:, None] + where[None, :]
        plain += tl.sum(tl.load(places, mask=mask, other=0.0), axis=0)
        squares += tl.sum(tl.load(places + channels, mask=mask, other=0.0), axis=0)
    if HAS_LATE:
        added = tl.load(late + image * late_stride + where, mask=inside & (where < own), other=0.0).to(tl.float32)
        squares += added * (2.0 * plain + pixels * added)
        plain += pixels * added
    mean = tl.sum(plain, axis=0) * share
    variance = tl.maximum(tl.sum(squares, axis=0) * share - mean * mean, 0.0)
    scale = tl.load(weight + where, mask=inside, other=0.0) / tl.sqrt(variance + eps)
    offset = tl.load(bias + where, mask=inside, other=0.0) - mean * scale
    if HAS_LATE:
        offset += added * scale
    tl.store(factors + image * 2 * channels + where, scale, mask=inside)
    tl.store(factors + (image * 2 + 1) * channels + where, offset, mask=inside)


@triton.jit
def _apply_kernel(
    value,
    factors,
    out,
    scale_of_fp8,
    pixels,
    channels,
    total,
    at,
    SILU: tl.constexpr,
    FP8: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """A scale and an offset per image and channel, and SiLU."""
    image = tl.program_id(2)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lines = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = columns < channels
    mask = (lines < pixels)[:, None] & inside[None, :]
    places = image.to(tl.int64) * pixels + lines.to(tl.int64)
    scale = tl.load(factors + image * 2 * total + at + columns, mask=inside, other=0.0)
    offset = tl.load(factors + (image * 2 + 1) * total + at + columns, mask=inside, other=0.0)
    x = tl.load(value + places[:, None] * channels + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    y = x * scale[None, :] + offset[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    if FP8:
        y = tl.clamp(y / tl.load(scale_of_fp8), -MOST, MOST)
    tl.store(out + places[:, None] * total + at + columns[None, :], y.to(out.dtype.element_ty), mask=mask)
