"""Kernels without sums over pixels: LayerNorm, pending sums, upsampling. All are bound by memory traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, scale_or_any

if TYPE_CHECKING:
    from torch import Tensor

    from sdxl_engine.engines.cuda.layers import Norm, Pending

_ROUNDS = 8
"""Tiles of rows of one LayerNorm program, which reads its constants once: they are as long as the rows."""
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
        (M, C) fp16 or fp8. Floor: 4 bytes per element, 3 with fp8.
    """
    lines, channels = stream.shape
    if len(norm.weight) != channels or shift.shape != (channels,):
        raise ValueError(f"got {channels} channels, expected {len(norm.weight)}; shift {tuple(shift.shape)}")
    out = torch.empty_like(stream, dtype=stream.dtype if scale is None else E4M3)
    # SDXL's widths, 640 and 1280, are a power of two and a quarter of it: in two blocks no lane is idle.
    block = 1 << (channels.bit_length() - 1)
    rest = triton.next_power_of_2(channels - block) if channels > block else 0
    tile = max(1, _ELEMENTS // 2 // block)
    _layer_norm_kernel[(triton.cdiv(lines, tile * _ROUNDS),)](
        stream,
        norm.weight,
        norm.bias,
        shift,
        out,
        scale_or_any(scale, stream),
        lines,
        channels,
        norm.eps,
        scale is not None,
        MOST=MOST,
        BLOCK=block,
        REST=rest,
        TILE=tile,
        ROUNDS=_ROUNDS,
    )
    return out


def add_up(pending: Pending | Tensor) -> Tensor:
    """Add a pending sum up, in the memory of its value; a tensor is left as it is.

    Returns:
        Like `pending.value`. Floor: 4 bytes per element, 6 with a residual.
    """
    if not hasattr(pending, "value"):
        return pending
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
        shift.stride(0) if shift is not None and shift.dim() == 2 else 0,  # noqa: PLR2004
        residual if residual is not None else value,
        pixels,
        channels,
        shift is not None,
        residual is not None,
        BLOCK=block,
        TILE=tile,
    )
    return value


def upsample(x: Tensor) -> Tensor:
    """Twice as high and wide, by the nearest pixel: (B, H, W, C) to (B, 2H, 2W, C), contiguous."""
    batch, height, width, channels = x.shape
    out = torch.empty(batch, 2 * height, 2 * width, channels, dtype=x.dtype, device=x.device)
    block = min(512, triton.next_power_of_2(channels))
    tile = max(1, _ELEMENTS // block)
    lines = batch * height * width
    # The rows are on the axis of a grid that may have more than 65535 programs.
    _upsample_kernel[triton.cdiv(lines, tile), triton.cdiv(channels, block)](
        x, out, lines, width, channels, BLOCK=block, TILE=tile
    )
    return out


@triton.jit
def _layer_norm_kernel(  # noqa: ANN202
    stream,
    weight,
    bias,
    shift,
    out,
    scale,
    lines,
    channels,
    eps,
    FP8: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
    REST: tl.constexpr,
    TILE: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    """Whole rows, in a block of BLOCK channels and one of up to REST; ROUNDS tiles of TILE rows."""
    columns = tl.arange(0, BLOCK)
    added, slope, offset = tl.load(shift + columns), tl.load(weight + columns), tl.load(bias + columns)
    if REST > 0:
        more = BLOCK + tl.arange(0, REST)
        there = more < channels
        added_more = tl.load(shift + more, mask=there, other=0.0)
        slope_more = tl.load(weight + more, mask=there, other=0.0)
        offset_more = tl.load(bias + more, mask=there, other=0.0)
    if FP8:
        divisor = tl.load(scale)
        slope, offset = slope / divisor, offset / divisor
        if REST > 0:
            slope_more, offset_more = slope_more / divisor, offset_more / divisor
    for turn in range(ROUNDS):
        rows = (tl.program_id(0) * ROUNDS + turn) * TILE + tl.arange(0, TILE)
        inside = rows < lines
        places = rows[:, None].to(tl.int64) * channels + columns[None, :]
        x = tl.load(stream + places, mask=inside[:, None], other=0.0).to(tl.float32) + added[None, :]
        total = tl.sum(x, axis=1)
        if REST > 0:
            others = rows[:, None].to(tl.int64) * channels + more[None, :]
            mask = inside[:, None] & there[None, :]
            z = tl.load(stream + others, mask=mask, other=0.0).to(tl.float32) + added_more[None, :]
            total += tl.sum(z, axis=1)
        mean = total / channels
        x -= mean[:, None]
        squares = tl.sum(x * x, axis=1)
        if REST > 0:
            z = tl.where(there[None, :], z - mean[:, None], 0.0)
            squares += tl.sum(z * z, axis=1)
        factor = 1.0 / tl.sqrt(squares / channels + eps)
        y = x * factor[:, None] * slope[None, :] + offset[None, :]
        if FP8:
            y = tl.clamp(y, -MOST, MOST)
        tl.store(out + places, y.to(out.dtype.element_ty), mask=inside[:, None])
        if REST > 0:
            y = z * factor[:, None] * slope_more[None, :] + offset_more[None, :]
            if FP8:
                y = tl.clamp(y, -MOST, MOST)
            tl.store(out + others, y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _add_up_kernel(  # noqa: ANN202
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


@triton.jit
def _upsample_kernel(x, out, lines, width, channels, BLOCK: tl.constexpr, TILE: tl.constexpr):  # noqa: ANN202
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    mask = (rows < lines)[:, None] & (columns < channels)[None, :]
    pixel = tl.load(x + rows[:, None].to(tl.int64) * channels + columns[None, :], mask=mask, other=0.0)
    # Row r of the small image is rows 2r and 2r + 1 of the large one, which is twice as wide.
    first = (rows // width).to(tl.int64) * 4 * width + (rows % width) * 2
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            target = (first + down * 2 * width + right)[:, None] * channels + columns[None, :]
            tl.store(out + target, pixel, mask=mask)
