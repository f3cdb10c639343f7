"""LayerNorm over the channels of (M, C) rows, with a constant added first, in float16 or FP8.

Roofline: 2 bytes read and 2 (FP8: 1) written per element against about 10 operations: bound by memory, the floor is
bytes over the bandwidth of a device copy. The constant, weight and bias come from the L1 and L2 caches; float16 ones
halve that traffic. A row is kept in registers as two tiles, the largest power of two of its channels and the rest
(1280 = 1024 + 256, 640 = 512 + 128), so SDXL's widths leave no lane idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from sdxl_engine.engines.cuda.kernels.checks import FP8, INT32_MAX, need_tensor, output_for
from sdxl_engine.engines.cuda.kernels.tuning import Configuration, Configurations

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATIONS = Configurations("layer_norm")
_MOST_CHANNELS = 2048
_CANDIDATES: list[Configuration] = [
    {"ROWS": rows, "num_warps": warps} for rows, warps in ((2, 2), (1, 1), (2, 1), (4, 4), (1, 2))
]


@triton.jit
def _load_row(x_ptr, shift_ptr, start, channel, inside, channels):
    mask = inside & (channel < channels)[None, :]
    value = tl.load(x_ptr + start + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    if shift_ptr is not None:
        value += tl.load(shift_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    return value


@triton.jit
def _store_row(value, weight_ptr, bias_ptr, out_ptr, scale_ptr, start, channel, inside, channels):
    has = channel < channels
    value = value * tl.load(weight_ptr + channel, mask=has, other=0.0).to(tl.float32)[None, :]
    value += tl.load(bias_ptr + channel, mask=has, other=0.0).to(tl.float32)[None, :]
    if scale_ptr is not None:
        value = tl.clamp(value * (1.0 / tl.load(scale_ptr)), -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_ptr + start + channel[None, :], value.to(out_ptr.dtype.element_ty), mask=inside & has[None, :])


@triton.jit
def _layer_norm_kernel(
    x_ptr,  # (M, C) float16
    shift_ptr,  # (C,) float16 or float32, or None
    weight_ptr,  # (C,) float16 or float32
    bias_ptr,  # (C,) float16 or float32
    out_ptr,  # (M, C) float16 or float8e4nv
    scale_ptr,  # one float32, or None
    rows,
    channels,
    eps,
    ROWS: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    start = row.to(tl.int64)[:, None] * channels
    main = tl.arange(0, MAIN)
    value = _load_row(x_ptr, shift_ptr, start, main, inside, channels)
    total = tl.sum(value, axis=1)
    if REST > 0:
        rest = MAIN + tl.arange(0, REST)
        more = _load_row(x_ptr, shift_ptr, start, rest, inside, channels)
        total += tl.sum(more, axis=1)
    mean = (total / channels)[:, None]
    value = value - mean
    squares = tl.sum(value * value, axis=1)
    if REST > 0:
        more = tl.where((rest < channels)[None, :], more - mean, 0.0)
        squares += tl.sum(more * more, axis=1)
    inverse = (1.0 / tl.sqrt(squares / channels + eps))[:, None]
    _store_row(value * inverse, weight_ptr, bias_ptr, out_ptr, scale_ptr, start, main, inside, channels)
    if REST > 0:
        _store_row(more * inverse, weight_ptr, bias_ptr, out_ptr, scale_ptr, start, rest, inside, channels)


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    eps: float = 1e-5,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    configuration: Configuration | None = None,
) -> torch.Tensor:
    """LayerNorm of x + shift, in float32 throughout.

    Args:
        x: (M, C) float16, contiguous; C a multiple of 16, at most 2048.
        weight: (C,) float32 or float16.
        bias: (C,) float32 or float16.
        eps: Added to the variance.
        shift: (C,) float32 or float16, added to every row before it is normalised: a bias that was kept out of the
            residual stream. None adds nothing.
        scale: One float32: the output is float8_e4m3fn, the value over `scale` saturated to 448. None: float16.
        out: (M, C). It may be `x` itself where it is float16.
        configuration: A launch configuration; None looks it up by shape.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    need_tensor("x", x, dtypes=(torch.float16,))
    if x.dim() != 2 or x.shape[1] % 16 or not 16 <= x.shape[1] <= _MOST_CHANNELS or x.shape[0] > INT32_MAX:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, expected (M, C) with C a multiple of 16 up to {_MOST_CHANNELS}"
        )
    rows, channels = x.shape
    for name, vector in (("weight", weight), ("bias", bias), ("shift", shift)):
        if vector is not None:
            need_tensor(name, vector, shape=(channels,), dtypes=(torch.float32, torch.float16), like=x)
    out = output_for(out, x.shape, x, scale)
    chosen = configuration or CONFIGURATIONS.get(_key(out), _CANDIDATES[0])
    main = triton.next_power_of_2(channels + 1) // 2
    rest = triton.next_power_of_2(channels - main) if channels > main else 0
    _layer_norm_kernel[(triton.cdiv(rows, chosen["ROWS"]),)](
        x,
        shift,
        weight,
        bias,
        out,
        scale,
        rows,
        channels,
        eps,
        ROWS=chosen["ROWS"],
        MAIN=main,
        REST=rest,
        num_warps=chosen["num_warps"],
    )
    return out


def tune_layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **arguments: torch.Tensor | None
) -> list[tuple[float, Configuration]]:
    """Find the fastest configuration for this shape and keep it; (milliseconds, configuration) of each."""
    launch: Callable[..., torch.Tensor] = layer_norm
    out = output_for(arguments.get("out"), x.shape, x, arguments.get("scale"))
    return CONFIGURATIONS.tune(
        _key(out),
        _CANDIDATES,
        lambda configuration: launch(x, weight, bias, configuration=configuration, **{**arguments, "out": out}),
    )


def _key(out: torch.Tensor) -> str:
    return f"{'fp8' if out.dtype == FP8 else 'fp16'} {out.shape[0]}x{out.shape[1]}"
