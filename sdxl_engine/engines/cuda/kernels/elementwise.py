"""Pointwise kernels: GEGLU, quantisation, absolute maximum, guidance with the Euler step, nearest-2x upsampling.

All are bound by memory; the floor of each is its bytes over the bandwidth of a device copy:

    kernel            bytes per element of the output                    operations
    geglu             4 read, 2 written (FP8: 1)                         about 20, two of them special functions
    quantise          2 read, 1 written                                  3
    absolute_maximum  2 (float32: 4) read per element of the input       2
    guided_euler_step 2 x 2 (float32: 2 x 4) + 4 read, 4 + 2 x 2 written  6
    upsample          1/4 x 2 read, 2 written                            none

gelu(x) = x * Phi(x), Phi the normal distribution, by the formula 7.1.26 of Abramowitz and Stegun, Handbook of
Mathematical Functions: erfc(z) = t (a1 + t (a2 + ...)) exp(-z^2) with t = 1 / (1 + p z), off by at most 1.5e-7.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.checks import (
    INT32_MAX,
    largest_power_of_two_dividing,
    need_scalar,
    need_tensor,
    output_for,
)

_HALF_OR_SINGLE = (torch.float16, torch.float32)
_BLOCK = 2048
_MAXIMUM_TILES = 8


@triton.jit
def _gelu(x):
    """GELU, x * Phi(x), with Phi by its upper tail, so that small values keep their digits."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * tail * tl.exp(-z * z)
    return x * tl.where(x < 0, tail, 1.0 - tail)


@triton.jit
def _geglu_kernel(
    x_ptr,  # (M, 2D) float16
    out_ptr,  # (M, D) float16 or float8e4nv
    scale_ptr,  # one float32, or None
    rows,
    width,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = width // BLOCK
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    row = (tl.program_id(0) // blocks * ROWS + tl.arange(0, ROWS))[:, None]
    inside = row < rows
    start = row.to(tl.int64) * width
    value = tl.load(x_ptr + 2 * start + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + 2 * start + width + column, mask=inside, other=0.0).to(tl.float32)
    value = value * _gelu(gate)
    if scale_ptr is not None:
        value = tl.clamp(value * (1.0 / tl.load(scale_ptr)), -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_ptr + start + column, value.to(out_ptr.dtype.element_ty), mask=inside)


def geglu(x: torch.Tensor, *, scale: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """The product x[:, :D] * gelu(x[:, D:]), gelu by the error function, in float32 throughout.

    Args:
        x: (M, 2D) float16, contiguous; D a multiple of 16. Columns up to D are the values, the others the gates.
        scale: One float32: the output is float8_e4m3fn, the value over `scale` saturated to 448. None: float16.
        out: (M, D).

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("x", x, dtypes=(torch.float16,))
    if x.dim() != 2 or x.shape[1] % 32:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (M, 2D) with D a multiple of 16")
    rows, width = x.shape[0], x.shape[1] // 2
    out = output_for(out, (rows, width), x, scale)
    block = largest_power_of_two_dividing(width, most=512)
    tall = _BLOCK // block
    grid = (width // block * triton.cdiv(rows, tall),)
    _geglu_kernel[grid](x, out, scale, rows, width, ROWS=tall, BLOCK=block, num_warps=4)
    return out


@triton.jit
def _quantise_kernel(x_ptr, out_ptr, scale_ptr, count, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < count
    value = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32) * (1.0 / tl.load(scale_ptr))
    value = tl.clamp(value, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_ptr + offset, value.to(out_ptr.dtype.element_ty), mask=inside)


def quantise(x: torch.Tensor, scale: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Round x / scale to float8_e4m3fn, saturated to 448; NaN stays NaN.

    Args:
        x: Any shape, float16, contiguous.
        scale: One float32, from calibration.
        out: As x, float8_e4m3fn.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("x", x, dtypes=(torch.float16,))
    out = output_for(out, x.shape, x, scale)
    _quantise_kernel[(triton.cdiv(x.numel(), _BLOCK),)](x, out, scale, x.numel(), BLOCK=_BLOCK, num_warps=4)
    return out


@triton.jit
def _absolute_maximum_kernel(x_ptr, maximum_ptr, count, BLOCK: tl.constexpr, TILES: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK * TILES
    largest = tl.zeros((BLOCK,), dtype=tl.float32)
    for tile in tl.static_range(TILES):
        offset = start + tile * BLOCK + tl.arange(0, BLOCK)
        value = tl.abs(tl.load(x_ptr + offset, mask=offset < count, other=0.0).to(tl.float32))
        largest = tl.maximum(largest, tl.where(value == value, value, float("inf")))
    tl.atomic_max(maximum_ptr, tl.max(largest, axis=0))


def absolute_maximum(x: torch.Tensor, maximum: torch.Tensor) -> torch.Tensor:
    """Raise `maximum` to the largest |x|, where that is larger; a NaN makes it infinite. For calibration.

    Args:
        x: Any shape, float16 or float32, contiguous.
        maximum: One float32, not negative, read and written.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("x", x, dtypes=_HALF_OR_SINGLE)
    need_scalar("maximum", maximum, x)
    grid = (triton.cdiv(x.numel(), _BLOCK * _MAXIMUM_TILES),)
    _absolute_maximum_kernel[grid](x, maximum, x.numel(), BLOCK=_BLOCK, TILES=_MAXIMUM_TILES, num_warps=4)
    return maximum


@triton.jit
def _guided_euler_step_kernel(
    noise_ptr, latents_ptr, sample_ptr, guidance, sigma_step, next_scale, count, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < count
    negative = tl.load(noise_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    positive = tl.load(noise_ptr + count + offset, mask=inside, other=0.0).to(tl.float32)
    latents = tl.load(latents_ptr + offset, mask=inside, other=0.0)
    latents += (negative + guidance * (positive - negative)) * sigma_step
    tl.store(latents_ptr + offset, latents, mask=inside)
    sample = (latents * next_scale).to(sample_ptr.dtype.element_ty)
    tl.store(sample_ptr + offset, sample, mask=inside)
    tl.store(sample_ptr + count + offset, sample, mask=inside)


def guided_euler_step(
    noise: torch.Tensor,
    latents: torch.Tensor,
    sample: torch.Tensor,
    *,
    guidance: float,
    sigma_step: float,
    next_scale: float,
) -> None:
    """One Euler step with classifier-free guidance, and the UNet's next input.

    latents += (negative + guidance * (positive - negative)) * sigma_step; both halves of sample = latents * next_scale.

    Args:
        noise: (2B, ...) float16 or float32, the negative rows first, contiguous.
        latents: (B, ...) float32, in the order of dimensions that `noise` has; updated in place.
        sample: (2B, ...) float16; written.
        guidance: The scale.
        sigma_step: The next noise level minus this one.
        next_scale: 1 / sqrt(next noise level^2 + 1).

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("latents", latents, dtypes=(torch.float32,))
    doubled = (2 * latents.shape[0], *latents.shape[1:])
    need_tensor("noise", noise, shape=doubled, dtypes=_HALF_OR_SINGLE, like=latents)
    need_tensor("sample", sample, shape=doubled, dtypes=(torch.float16,), like=latents)
    count = latents.numel()
    _guided_euler_step_kernel[(triton.cdiv(count, 1024),)](
        noise, latents, sample, guidance, sigma_step, next_scale, count, BLOCK=1024, num_warps=4
    )


@triton.jit
def _upsample_kernel(x_ptr, out_ptr, pixels, width, channels, PIXELS: tl.constexpr, BLOCK: tl.constexpr):
    blocks = channels // BLOCK
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    pixel = ((tl.program_id(0) // blocks).to(tl.int64) * PIXELS + tl.arange(0, PIXELS))[:, None]
    inside = pixel < pixels
    value = tl.load(x_ptr + pixel * channels + channel, mask=inside, other=0.0)
    # Images lie one after the other, so (b, y) counts as one row: it becomes the rows 2 (b, y) and 2 (b, y) + 1.
    out = out_ptr + ((pixel // width) * (4 * width) + (pixel % width) * 2) * channels + channel
    tl.store(out, value, mask=inside)
    tl.store(out + channels, value, mask=inside)
    tl.store(out + 2 * width * channels, value, mask=inside)
    tl.store(out + (2 * width + 1) * channels, value, mask=inside)


def upsample(x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Every pixel becomes 2x2 pixels.

    Args:
        x: (B, H, W, C) float16, contiguous; C a multiple of 8.
        out: (B, 2H, 2W, C) float16.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("x", x, dtypes=(torch.float16,))
    if x.dim() != 4 or x.shape[3] % 8 or x.shape[:3].numel() > INT32_MAX:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, H, W, C) with C a multiple of 8")
    images, height, width, channels = x.shape
    out = output_for(out, (images, 2 * height, 2 * width, channels), x, None)
    pixels = images * height * width
    block = largest_power_of_two_dividing(channels, most=512)
    tall = _BLOCK // block
    grid = (channels // block * triton.cdiv(pixels, tall),)
    _upsample_kernel[grid](x, out, pixels, width, channels, PIXELS=tall, BLOCK=block, num_warps=4)
    return out
