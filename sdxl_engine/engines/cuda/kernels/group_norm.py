"""GroupNorm over NHWC, with what stands before and after it: the sum that it normalises, a concatenation, SiLU.

Three kernels: mean and sum of squared deviations per channel and chunk of pixels; from them a scale and an offset per
image and channel; and `silu(x * scale + offset)`. Sums are in fp32, of differences to a pixel of the chunk, and chunks
are merged by their means (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979), so the variance is right where the mean is far from zero. Their order depends on the shape of one
image alone, so results are deterministic and the same in any batch. Groups may hold channels of both inputs of a
concatenation.

Floor, by memory traffic: 2 bytes per element read twice and written once, and 4 more per element and pass for a
residual and the sum that is kept. On an NVIDIA H200 (torch 2.11.0, Triton 3.6, `python benchmarks/kernels.py`,
2026-11-28) with SiLU, of one tensor with nothing pending: the time, the floor's bytes over it in TB/s, and the share of
the 4.8 TB/s that the memory has on the data sheet, where B, H, W, C are

            16, 32, 32, 1280           16, 128, 128, 320          8, 1024, 1024, 128
    fp16    0.0714 ms, 1.76 (37 %)     0.1673 ms, 3.01 (63 %)     1.9767 ms, 3.26 (68 %)
    fp8                                0.1536 ms, 2.73 (57 %)     1.8011 ms, 2.98 (62 %)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.checks import need_pending, need_tensor
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, scale_or_any
from sdxl_engine.engines.cuda.layers import Norm, Pending

if TYPE_CHECKING:
    from torch import Tensor

_TILE = 32
"""Pixels that a program reads at a time."""
_MOMENTS = 1024
"""Means, about, of chunks and channels that are merged at a time."""


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
        (B, H, W, C + C') fp16 or fp8, and the sum (B, H, W, C) fp16: in the memory of `x.value` if it was pending, and
        that value itself if it is not kept.

    Raises:
        ValueError: Another shape, type or layout.
    """
    pending = x if isinstance(x, Pending) else Pending(x)
    value = pending.value
    need_pending(pending)
    batch, height, width, own = value.shape
    if skip is not None:
        need_tensor("skip", skip, shape=(batch, height, width, skip.shape[-1]), dtypes=(torch.float16,), like=value)
    channels = own + (0 if skip is None else skip.shape[-1])
    if channels % norm.groups:
        raise ValueError(f"{channels} channels cannot be split in {norm.groups} groups of the same width")
    for name, tensor in (("weight", norm.weight), ("bias", norm.bias)):
        need_tensor(name, tensor, shape=(channels,), dtypes=(torch.float32,), like=value)
    pixels = height * width
    chunk = _chunk(pixels)
    chunks = triton.cdiv(pixels, chunk)
    moments = torch.empty(batch, chunks, 2, channels, dtype=torch.float32, device=value.device)
    written = pending.residual is not None or (keep and pending.shift is not None)
    _sum(value, pending if written else Pending(value), moments, 0, chunk, store=written)
    if skip is not None:
        _sum(skip, Pending(skip), moments, own, chunk, store=False)
    factors = torch.empty(batch, 2, channels, dtype=torch.float32, device=value.device)
    size = channels // norm.groups
    block = triton.next_power_of_2(size)
    late = pending.shift if pending.shift is not None and not written else None
    _factors_kernel[batch, norm.groups](
        moments,
        factors,
        norm.weight,
        norm.bias,
        late if late is not None else moments,
        late.stride(0) if late is not None and late.dim() == 2 else 0,
        chunks,
        chunk,
        channels,
        size,
        own,
        1.0 / (pixels * size),
        pixels,
        norm.eps,
        late is not None,
        CHUNKS=min(max(16, _MOMENTS // block), triton.next_power_of_2(chunks)),
        BLOCK=block,
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
    return min(max(int(triton.next_power_of_2(pixels)) // 16, 64), 4096)


def _block(channels: int) -> int:
    for block in (128, 64):
        if channels % block == 0:
            return block
    return min(64, int(triton.next_power_of_2(channels)))


def _sum(value: Tensor, pending: Pending, moments: Tensor, at: int, chunk: int, *, store: bool) -> None:
    batch, chunks, _, total = moments.shape
    channels = value.shape[-1]
    block = _block(channels)
    shift, residual = pending.shift, pending.residual
    _sum_kernel[triton.cdiv(channels, block), chunks, batch](
        value,
        shift if shift is not None else value,
        shift.stride(0) if shift is not None and shift.dim() == 2 else 0,
        residual if residual is not None else value,
        moments,
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
    moments,
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
    """Adds up the pending sum, in place of `value`; its mean and squared deviations over the pixels of one chunk."""
    number, image = tl.program_id(1), tl.program_id(2)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < channels
    plain = tl.zeros((TILE, BLOCK), dtype=tl.float32)
    squares = tl.zeros((TILE, BLOCK), dtype=tl.float32)
    if HAS_SHIFT:
        added = tl.load(shift + image * shift_stride + columns, mask=inside, other=0.0).to(tl.float32)
    base = image.to(tl.int64) * pixels * channels
    first, end = number * chunk, min(number * chunk + chunk, pixels)
    at_pivot = base + first.to(tl.int64) * channels + columns
    pivot = tl.load(value + at_pivot, mask=inside, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        pivot += added
    if HAS_RESIDUAL:
        pivot += tl.load(residual + at_pivot, mask=inside, other=0.0).to(tl.float32)
    if STORE:
        # No thread writes this pixel before all have read it; no other program does.
        tl.debug_barrier()
    for begin in range(first, end, TILE):
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
        x = tl.where(mask, x - pivot[None, :], 0.0)
        plain += x
        squares += x * x
    difference = tl.sum(plain, axis=0) / (end - first)
    target = moments + (image * tl.num_programs(1) + number) * 2 * total + at + columns
    tl.store(target, pivot + difference, mask=inside)
    deviations = tl.sum(squares, axis=0) - difference * difference * (end - first)
    tl.store(target + total, tl.maximum(deviations, 0.0, propagate_nan=tl.PropagateNan.ALL), mask=inside)


@triton.jit
def _factors_kernel(
    moments,
    factors,
    weight,
    bias,
    late,
    late_stride,
    chunks,
    chunk,
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

    `late` is a constant per channel that the moments were made without.
    """
    image, group = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    inside = columns < size
    where = group * size + columns
    late_of = tl.zeros((BLOCK,), dtype=tl.float32)
    if HAS_LATE:
        late_of = tl.load(late + image * late_stride + where, mask=inside & (where < own), other=0.0).to(tl.float32)
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, chunks, CHUNKS):
        lines = begin + tl.arange(0, CHUNKS)
        mask = (lines < chunks)[:, None] & inside[None, :]
        places = moments + ((image * chunks + lines) * 2 * channels)[:, None] + where[None, :]
        count = tl.minimum(pixels - lines * chunk, chunk).to(tl.float32)
        means = tl.load(places, mask=mask, other=0.0) + late_of[None, :]
        sums += tl.sum(tl.where(mask, count[:, None] * means, 0.0), axis=0)
    mean = tl.sum(sums, axis=0) * share
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, chunks, CHUNKS):
        lines = begin + tl.arange(0, CHUNKS)
        mask = (lines < chunks)[:, None] & inside[None, :]
        places = moments + ((image * chunks + lines) * 2 * channels)[:, None] + where[None, :]
        count = tl.minimum(pixels - lines * chunk, chunk).to(tl.float32)
        off = tl.load(places, mask=mask, other=0.0) + late_of[None, :] - mean
        squares += tl.sum(tl.where(mask, count[:, None] * off * off, 0.0), axis=0)
        squares += tl.sum(tl.load(places + channels, mask=mask, other=0.0), axis=0)
    variance = tl.sum(squares, axis=0) * share
    scale = tl.load(weight + where, mask=inside, other=0.0) / tl.sqrt(variance + eps)
    offset = tl.load(bias + where, mask=inside, other=0.0) - mean * scale
    if HAS_LATE:
        offset += late_of * scale
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
        y = tl.clamp(y / tl.load(scale_of_fp8), -MOST, MOST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + places[:, None] * total + at + columns[None, :], y.to(out.dtype.element_ty), mask=mask)
