"""GroupNorm, optionally followed by SiLU, over NHWC activations, of one tensor or of the concat of two.

Three launches, none with atomics, so the result is the same bits whatever the batch and the order of programs:

    partial   sums of (x - pivot) and (x - pivot)^2 per channel and chunk of pixels; the pivot is the first pixel
    combine   per image and group: mean and variance out of the chunks and channels; per channel a slope and an offset
    apply     y = silu(x * slope + offset), float16, or FP8 by a static scale

Sums are kept by channel until `combine`, so that groups of any width, and groups that straddle a concat, cost nothing
in the two launches that move the data. The pivot keeps the variance exact where the mean is far from 0.

Roofline: each element is read twice (2 x 2 bytes) and written once (2 bytes, or 1 in FP8), 6 or 5 bytes against about
20 operations: bound by memory, the floor is bytes over the bandwidth of a device copy. What fits the L2 cache is read
from memory once. `combine` reads 8 bytes per channel and chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.checks import (
    FP8,
    INT32_MAX,
    largest_power_of_two_dividing,
    need_tensor,
    output_for,
)
from sdxl_engine.engines.cuda.kernels.tuning import Configuration, Configurations

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATIONS = Configurations("group_norm")
_MOST_CHUNKS = 512
_CHUNK_ELEMENTS = 32768
_MOST_BLOCK_CHANNELS = 256
_PARTIAL_ELEMENTS = 4096
_CANDIDATES: list[Configuration] = [
    {"elements": elements, "tiles": tiles, "num_warps": warps}
    for elements, tiles, warps in ((4096, 4, 8), (4096, 2, 4), (2048, 4, 4), (8192, 2, 8))
]


@triton.jit
def _partial_kernel(
    first_ptr,  # (B, P, FIRST_CHANNELS) float16
    second_ptr,  # (B, P, C - FIRST_CHANNELS) float16, or None
    sums_ptr,  # (B, chunks, 2, C) float32
    pivots_ptr,  # (B, C) float32
    pixels,
    chunk_pixels,
    first_channels,
    second_channels,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    block, chunk, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    channels = first_channels + second_channels
    base = first_ptr + image * pixels * first_channels + block * BLOCK_C
    stride = first_channels
    if second_ptr is not None:
        if block * BLOCK_C >= first_channels:
            base = second_ptr + image * pixels * second_channels + (block * BLOCK_C - first_channels)
            stride = second_channels
    stride = tl.multiple_of(stride, 8)
    lane = tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    pivot = tl.load(base + lane).to(tl.float32)
    sums = tl.zeros((ROWS, BLOCK_C), dtype=tl.float32)
    squares = tl.zeros((ROWS, BLOCK_C), dtype=tl.float32)
    begin = chunk * chunk_pixels
    end = tl.minimum(begin + chunk_pixels, pixels)
    for start in range(begin, end, ROWS):
        inside = (start + row < end)[:, None]
        value = tl.load(base + (start + row)[:, None] * stride + lane[None, :], mask=inside, other=0.0)
        centred = tl.where(inside, value.to(tl.float32) - pivot[None, :], 0.0)
        sums += centred
        squares += centred * centred
    channel = block * BLOCK_C + lane
    place = sums_ptr + (image * tl.num_programs(1) + chunk) * 2 * channels + channel
    tl.store(place, tl.sum(sums, axis=0))
    tl.store(place + channels, tl.sum(squares, axis=0))
    if chunk == 0:
        tl.store(pivots_ptr + image * channels + channel, pivot)


@triton.jit
def _combine_kernel(
    sums_ptr,  # (B, chunks, 2, C) float32
    pivots_ptr,  # (B, C) float32
    weight_ptr,  # (C,) float32
    bias_ptr,  # (C,) float32
    slopes_ptr,  # (B, 2, C) float32: slope, offset
    pixels,
    chunks,
    channels,
    group_channels,
    eps,
    CHUNKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BLOCK_C)
    mine = lane < group_channels
    channel = group * group_channels + lane
    row = tl.arange(0, CHUNKS)
    sums = tl.zeros((CHUNKS, BLOCK_C), dtype=tl.float32)
    squares = tl.zeros((CHUNKS, BLOCK_C), dtype=tl.float32)
    for start in range(0, chunks, CHUNKS):
        mask = (start + row < chunks)[:, None] & mine[None, :]
        place = sums_ptr + (image * chunks + start + row)[:, None] * (2 * channels) + channel[None, :]
        sums += tl.load(place, mask=mask, other=0.0)
        squares += tl.load(place + channels, mask=mask, other=0.0)
    count = pixels * 1.0
    shift = tl.sum(sums, axis=0) / count
    pivot = tl.load(pivots_ptr + image * channels + channel, mask=mine, other=0.0)
    channel_mean = tl.where(mine, pivot + shift, 0.0)
    mean = tl.sum(channel_mean, axis=0) / group_channels
    within = tl.sum(squares, axis=0) / count - shift * shift
    apart = channel_mean - mean
    variance = tl.sum(tl.where(mine, within + apart * apart, 0.0), axis=0) / group_channels
    inverse = 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    slope = inverse * tl.load(weight_ptr + channel, mask=mine, other=0.0)
    offset = tl.load(bias_ptr + channel, mask=mine, other=0.0) - mean * slope
    place = slopes_ptr + image * 2 * channels + channel
    tl.store(place, slope, mask=mine)
    tl.store(place + channels, offset, mask=mine)


@triton.jit
def _apply_kernel(
    first_ptr,  # (B, P, FIRST_CHANNELS) float16
    second_ptr,  # (B, P, C - FIRST_CHANNELS) float16, or None
    slopes_ptr,  # (B, 2, C) float32
    out_ptr,  # (B, P, C) float16 or float8e4nv
    scale_ptr,  # one float32, or None
    pixels,
    first_channels,
    second_channels,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SILU: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    channels = first_channels + second_channels
    blocks = channels // BLOCK_C
    block, chunk = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    base = first_ptr + image * pixels * first_channels + block * BLOCK_C
    stride = first_channels
    if second_ptr is not None:
        if block * BLOCK_C >= first_channels:
            base = second_ptr + image * pixels * second_channels + (block * BLOCK_C - first_channels)
            stride = second_channels
    stride = tl.multiple_of(stride, 8)
    lane = tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    channel = block * BLOCK_C + lane
    slope = tl.load(slopes_ptr + image * 2 * channels + channel)[None, :]
    offset = tl.load(slopes_ptr + image * 2 * channels + channels + channel)[None, :]
    out = out_ptr + image * pixels * channels + channel[None, :]
    for tile in tl.static_range(TILES):
        pixel = (chunk * TILES + tile) * ROWS + row
        inside = (pixel < pixels)[:, None]
        value = tl.load(base + pixel[:, None] * stride + lane[None, :], mask=inside, other=0.0).to(tl.float32)
        value = value * slope + offset
        if SILU:
            value = value / (1.0 + tl.exp(-value))
        if scale_ptr is not None:
            value = tl.clamp(value * (1.0 / tl.load(scale_ptr)), -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out + pixel[:, None] * channels, value.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class GroupNormSpace:
    """What one `group_norm` needs beside its tensors; shared by all calls of one stream if it is large enough.

    Args:
        sums: float32, at least B * chunks * 2 * C.
        pivots: float32, at least B * C.
        slopes: float32, at least B * 2 * C.
    """

    sums: torch.Tensor
    pivots: torch.Tensor
    slopes: torch.Tensor

    @classmethod
    def allocate(cls, images: int, pixels: int, channels: int, device: torch.device) -> GroupNormSpace:
        """Room for (B, P, C) inputs, in whatever way C is split in two."""
        chunks = _chunk_count(pixels, 8)[0]
        sizes = (images * chunks * 2 * channels, images * channels, images * 2 * channels)
        return cls(*(torch.empty(size, dtype=torch.float32, device=device) for size in sizes))


def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    groups: int = 32,
    eps: float = 1e-5,
    silu: bool = True,
    second: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    space: GroupNormSpace | None = None,
    configuration: Configuration | None = None,
) -> torch.Tensor:
    """GroupNorm and SiLU of x, or of the channel concat of x and `second`, which is never made.

    Args:
        x: (B, P, C1) or (B, H, W, C1) float16, contiguous; C1 a multiple of 8.
        weight: (C1 + C2,) float32.
        bias: (C1 + C2,) float32.
        groups: Of equal width in C1 + C2; one may straddle the two tensors.
        eps: Added to the variance.
        silu: Whether SiLU follows.
        second: (B, P, C2) or (B, H, W, C2) float16, or None.
        scale: One float32: the output is float8_e4m3fn, the value over `scale` saturated to 448. None: float16.
        out: As x with C1 + C2 channels. It must not be an input.
        space: Working memory; None allocates it.
        configuration: A launch configuration; None looks it up by shape.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    split = _checked(x, second, weight, bias, groups)
    images, pixels, first_channels, second_channels = split
    channels = first_channels + second_channels
    out = output_for(out, (*x.shape[:-1], channels), x, scale)
    chosen = configuration or CONFIGURATIONS.get(_key(split, out), _CANDIDATES[0])
    block_c = largest_power_of_two_dividing(first_channels, second_channels, most=_MOST_BLOCK_CHANNELS)
    rows = chosen["elements"] // block_c
    chunks, chunk_pixels = _chunk_count(pixels, block_c)
    space = space or GroupNormSpace.allocate(images, pixels, channels, x.device)
    if space.sums.numel() < images * chunks * 2 * channels or space.slopes.numel() < images * 2 * channels:
        raise ValueError(
            f"space is too small for {images} images of {pixels} pixels of {channels} channels; allocate it for them"
        )
    blocks = channels // block_c
    _partial_kernel[(blocks, chunks, images)](
        x,
        second,
        space.sums,
        space.pivots,
        pixels,
        chunk_pixels,
        first_channels,
        second_channels,
        ROWS=_PARTIAL_ELEMENTS // block_c,
        BLOCK_C=block_c,
        num_warps=8,
    )
    _combine_kernel[(groups, images)](
        space.sums,
        space.pivots,
        weight,
        bias,
        space.slopes,
        pixels,
        chunks,
        channels,
        channels // groups,
        eps,
        CHUNKS=min(triton.next_power_of_2(chunks), 32),
        BLOCK_C=triton.next_power_of_2(channels // groups),
        num_warps=4,
    )
    _apply_kernel[(blocks * triton.cdiv(pixels, rows * chosen["tiles"]), images)](
        x,
        second,
        space.slopes,
        out,
        scale,
        pixels,
        first_channels,
        second_channels,
        ROWS=rows,
        TILES=chosen["tiles"],
        BLOCK_C=block_c,
        SILU=silu,
        num_warps=chosen["num_warps"],
    )
    return out


def tune_group_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **arguments: torch.Tensor | None
) -> list[tuple[float, Configuration]]:
    """Find the fastest configuration of `apply` for this shape and keep it; (milliseconds, configuration) of each.

    The chunks of `partial`, which the bits of the result depend on, are not tuned.
    """
    second = arguments.get("second")
    split = _checked(x, second, weight, bias, 1)
    scale = arguments.get("scale")
    out = output_for(arguments.get("out"), (*x.shape[:-1], split[2] + split[3]), x, scale)
    launch: Callable[..., torch.Tensor] = group_norm
    return CONFIGURATIONS.tune(
        _key(split, out),
        _CANDIDATES,
        lambda configuration: launch(x, weight, bias, configuration=configuration, **{**arguments, "out": out}),
    )


def _chunk_count(pixels: int, block_c: int) -> tuple[int, int]:
    """(chunks, pixels per chunk) of one image: by the image's size alone, so that a batch changes no bits."""
    chunk_pixels = max(_CHUNK_ELEMENTS // block_c, -(-pixels // _MOST_CHUNKS))
    return -(-pixels // chunk_pixels), chunk_pixels


def _key(split: tuple[int, int, int, int], out: torch.Tensor) -> str:
    return f"{'fp8' if out.dtype == FP8 else 'fp16'} {'x'.join(map(str, split))}"


def _checked(
    x: torch.Tensor, second: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor, groups: int
) -> tuple[int, int, int, int]:
    need_tensor("x", x, dtypes=(torch.float16,))
    if x.dim() not in {3, 4} or x.shape[-1] % 8:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, P, C) or (B, H, W, C) with C a multiple of 8")
    second_channels = 0
    if second is not None:
        second_channels = second.shape[-1]
        need_tensor("second", second, shape=(*x.shape[:-1], second_channels), dtypes=(torch.float16,), like=x)
        if second_channels % 8:
            raise ValueError(f"second has {second_channels} channels, expected a multiple of 8")
    channels = x.shape[-1] + second_channels
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split in {groups} groups of the same width")
    pixels = x.shape[1:-1].numel()
    if pixels * channels > INT32_MAX:
        raise ValueError(
            f"an image of {pixels} x {channels} has more than {INT32_MAX} elements, which are not addressed"
        )
    need_tensor("weight", weight, shape=(channels,), dtypes=(torch.float32,), like=x)
    need_tensor("bias", bias, shape=(channels,), dtypes=(torch.float32,), like=x)
    return x.shape[0], pixels, x.shape[-1], second_channels
