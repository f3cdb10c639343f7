"""The Triton kernels of the engine `cuda` on SDXL's shapes, against cuDNN and PyTorch: `python benchmarks/kernels.py`.

Each row first compares the kernel's output for one image (or its first rows) with float32 arithmetic on the very
inputs, then looks for the fastest launch configuration, then times: median of 20 replays of a CUDA graph of several
launches, by CUDA events.
Inputs that would fit the L2 cache are taken from as many copies in turn as it takes to leave it. The baseline is
float16: cuDNN with its own search, on channels-last tensors; torch's eager GroupNorm, LayerNorm, SiLU and GELU.

    TFLOP/s     operations that the kernel does (after upsampling 4 taps; cuDNN does 9)
    TB/s        bytes that the operation must move: inputs and outputs once, GroupNorm's input twice
    error       norm of the difference to float32 over the norm of the result; FP8 inputs are taken as rounded

A kernel that fails is a row that says so.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.checks import FP8
from sdxl_engine.engines.cuda.kernels.conv3x3 import conv3x3, tune_conv3x3
from sdxl_engine.engines.cuda.kernels.conv_weights import pack_conv3x3, pack_upsample_conv3x3
from sdxl_engine.engines.cuda.kernels.elementwise import (
    absolute_maximum,
    geglu,
    guided_euler_step,
    quantise,
    upsample,
)
from sdxl_engine.engines.cuda.kernels.group_norm_silu import group_norm, tune_group_norm
from sdxl_engine.engines.cuda.kernels.layer_norm import layer_norm, tune_layer_norm
from sdxl_engine.engines.cuda.kernels.tuning import graphed_milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONVOLUTIONS = [
    # B, H, W, C, N
    (16, 32, 32, 1280, 1280),
    (16, 32, 32, 2560, 1280),
    (16, 64, 64, 640, 640),
    (16, 64, 64, 1920, 640),
    (16, 128, 128, 320, 320),
    (16, 128, 128, 640, 320),
    (16, 128, 128, 960, 320),
]
UPSAMPLE_CONVOLUTIONS = [(16, 32, 32, 1280, 1280), (16, 64, 64, 640, 640)]
FP16_CONVOLUTIONS = [(16, 64, 64, 640, 640)]
GROUP_NORMS = [
    # B, H, W, C1, C2 of a concat
    (16, 32, 32, 1280, 0),
    (16, 32, 32, 1280, 1280),
    (16, 64, 64, 640, 0),
    (16, 64, 64, 1280, 640),
    (16, 128, 128, 320, 0),
    (16, 128, 128, 320, 320),
    (16, 128, 128, 640, 320),
    (8, 1024, 1024, 128, 0),
    (8, 512, 512, 256, 0),
    (8, 256, 256, 512, 0),
]
LAYER_NORMS = [(16384, 1280), (65536, 640)]
GEGLUS = [(16384, 10240), (65536, 5120)]
REPETITIONS = 20
SCALE = 0.02
"""Of activations: normal values reach 4 or so, which is 200 of FP8's 448."""


@dataclass
class Row:
    """One line of the table; `failure` alone is set where the kernel failed."""

    kernel: str
    shape: str
    ms: float = math.nan
    rate: float = math.nan
    unit: str = ""
    baseline_ms: float = math.nan
    ratio: float = math.nan
    error: float = math.nan
    configuration: dict[str, int] | None = None
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return f"{self.kernel:24} {self.shape:26} FAILED {self.failure}"
        chosen = " ".join(f"{name}={value}" for name, value in (self.configuration or {}).items())
        return (
            f"{self.kernel:24} {self.shape:26} {self.ms:8.4f} {self.rate:8.2f} {self.unit:7} {self.baseline_ms:9.4f} "
            f"{self.ratio:7.2f} {self.error:9.2e}  {chosen}"
        )


def timed(launches: list[Callable[[], object]]) -> float:
    """Median milliseconds of one launch; they are taken in turn."""
    return graphed_milliseconds(launches, REPETITIONS)


def copies(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensor, and as many clones as it takes to push it out of the L2 cache before it is read again."""
    cache = torch.cuda.get_device_properties(tensor.device).L2_cache_size
    count = max(1, math.ceil(2 * cache / (tensor.numel() * tensor.itemsize)))
    return [tensor, *(tensor.clone() for _ in range(min(count, 16) - 1))]


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def rounded_to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """FP8 values and their scale."""
    scale = torch.tensor(SCALE, device=x.device)
    return (x / scale).clamp(-448, 448).to(FP8), scale


def convolution(shape: tuple[int, ...], dtype: torch.dtype, *, zoom: int) -> Row:
    """3x3 convolution with bias; after nearest-2x upsampling with zoom 2."""
    images, height, width, channels, out_channels = shape
    name = f"{'upsample+' if zoom == 2 else ''}conv3x3 {'fp8' if dtype == FP8 else 'fp16'}"
    row = Row(name, "x".join(map(str, shape[:4])) + f"->{out_channels}", unit="TFLOP/s")
    x = torch.randn(images, height, width, channels, device="cuda", dtype=torch.float16)
    weight = torch.randn(out_channels, channels, 3, 3, device="cuda") / math.sqrt(9 * channels)
    bias = torch.randn(out_channels, device="cuda")
    weights = (pack_conv3x3 if zoom == 1 else pack_upsample_conv3x3)(weight, dtype)
    inputs, scale = rounded_to_fp8(x) if dtype == FP8 else (x, None)
    out = torch.full((images, height * zoom, width * zoom, out_channels), math.nan, device="cuda", dtype=torch.float16)
    conv3x3(inputs, weights, x_scale=scale, bias=bias, out=out)
    one = inputs[:1].float() * (1.0 if scale is None else scale)
    row.error = relative(out[:1], exact_convolution(one, weights, bias, zoom))
    row.configuration = tune_conv3x3(inputs, weights, x_scale=scale, bias=bias, out=out)[0][1]
    row.ms = timed([partial(conv3x3, one_of, weights, x_scale=scale, bias=bias, out=out) for one_of in copies(inputs)])
    taps = 9 if zoom == 1 else 4
    row.rate = 2e-9 * taps * channels * out_channels * images * height * width * zoom**2 / row.ms
    half, half_bias = weight.half().contiguous(memory_format=torch.channels_last), bias.half()

    def cudnn(one_of: torch.Tensor) -> torch.Tensor:
        nchw = one_of.permute(0, 3, 1, 2)
        if zoom == 2:
            nchw = F.interpolate(nchw, scale_factor=2, mode="nearest")
        return F.conv2d(nchw, half, half_bias, padding=1)

    row.baseline_ms = timed([partial(cudnn, one_of) for one_of in copies(x)])
    return row


def exact_convolution(x: torch.Tensor, weights: object, bias: torch.Tensor, zoom: int) -> torch.Tensor:
    """(B, H, W, N) float32 out of the packed weights, TF32 off."""
    rows = weights.weight.float() * (1.0 if weights.scale is None else weights.scale[:, None])
    side = 3 if zoom == 1 else 2
    kernels = rows.reshape(zoom * zoom, weights.out_channels, side, side, weights.in_channels).permute(0, 1, 4, 2, 3)
    nchw = x.permute(0, 3, 1, 2).contiguous()
    if zoom == 1:
        return F.conv2d(nchw, kernels[0].contiguous(), bias, padding=1).permute(0, 2, 3, 1)
    images, _, height, width = nchw.shape
    out = torch.empty(images, weights.out_channels, 2 * height, 2 * width, device=x.device)
    for phase in range(4):
        down, right = divmod(phase, 2)
        padded = F.pad(nchw, (1 - right, right, 1 - down, down))
        out[:, :, down::2, right::2] = F.conv2d(padded, kernels[phase].contiguous(), bias)
    return out.permute(0, 2, 3, 1)


def normalised(shape: tuple[int, ...], dtype: torch.dtype) -> Row:
    """GroupNorm and SiLU, of one tensor or the concat of two."""
    images, height, width, first, second = shape
    channels = first + second
    row = Row(f"group_norm+silu {'fp8' if dtype == FP8 else 'fp16'}", f"{images}x{height}x{width}x{first}", unit="TB/s")
    row.shape += f"+{second}" if second else ""
    x = torch.randn(images, height, width, first, device="cuda", dtype=torch.float16)
    more = torch.randn(images, height, width, second, device="cuda", dtype=torch.float16) if second else None
    weight, bias = torch.randn(channels, device="cuda"), torch.randn(channels, device="cuda")
    scale = torch.tensor(SCALE, device="cuda") if dtype == FP8 else None
    out = torch.full((images, height, width, channels), math.nan, device="cuda").to(dtype)
    group_norm(x, weight, bias, second=more, scale=scale, out=out)
    one = (x[:1] if more is None else torch.cat([x[:1], more[:1]], -1)).permute(0, 3, 1, 2)
    expected = F.silu(F.group_norm(one.float(), 32, weight, bias, 1e-5)).permute(0, 2, 3, 1)
    row.error = relative(out[:1].float() * (1.0 if scale is None else scale), expected)
    row.configuration = tune_group_norm(x, weight, bias, second=more, scale=scale, out=out)[0][1]
    row.ms = timed(
        [partial(group_norm, one_of, weight, bias, second=more, scale=scale, out=out) for one_of in copies(x)]
    )
    row.rate = 1e-9 * images * height * width * channels * (4 + out.itemsize) / row.ms
    half, half_bias = weight.half(), bias.half()

    def eager(nchw: torch.Tensor, second_nchw: torch.Tensor | None) -> torch.Tensor:
        joined = nchw if second_nchw is None else torch.cat([nchw, second_nchw], 1)
        return F.silu(F.group_norm(joined, 32, half, half_bias, 1e-5), inplace=True)

    nchw, second_nchw = (None if t is None else t.permute(0, 3, 1, 2).contiguous() for t in (x, more))
    row.baseline_ms = timed([partial(eager, one_of, second_nchw) for one_of in copies(nchw)])
    return row


def layer_normalised(shape: tuple[int, int], dtype: torch.dtype) -> Row:
    """LayerNorm of x + shift; the baseline adds nothing."""
    row = Row(f"layer_norm {'fp8' if dtype == FP8 else 'fp16'}", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    weight, bias, shift = (torch.randn(shape[1], device="cuda") for _ in range(3))
    scale = torch.tensor(SCALE, device="cuda") if dtype == FP8 else None
    out = torch.full(shape, math.nan, device="cuda").to(dtype)
    layer_norm(x, weight, bias, shift=shift, scale=scale, out=out)
    expected = F.layer_norm(x.float() + shift, shape[1:], weight, bias, 1e-5)
    row.error = relative(out.float() * (1.0 if scale is None else scale), expected)
    row.configuration = tune_layer_norm(x, weight, bias, shift=shift, scale=scale, out=out)[0][1]
    row.ms = timed(
        [partial(layer_norm, one_of, weight, bias, shift=shift, scale=scale, out=out) for one_of in copies(x)]
    )
    row.rate = 1e-9 * x.numel() * (2 + out.itemsize) / row.ms
    half, half_bias = weight.half(), bias.half()
    row.baseline_ms = timed([partial(F.layer_norm, one_of, shape[1:], half, half_bias) for one_of in copies(x)])
    return row


def gated(shape: tuple[int, int], dtype: torch.dtype) -> Row:
    """GEGLU."""
    row = Row(f"geglu {'fp8' if dtype == FP8 else 'fp16'}", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    scale = torch.tensor(SCALE, device="cuda") if dtype == FP8 else None
    out = torch.full((shape[0], shape[1] // 2), math.nan, device="cuda").to(dtype)
    geglu(x, scale=scale, out=out)
    value, gate = x[:1024].float().chunk(2, -1)
    row.error = relative(out[:1024].float() * (1.0 if scale is None else scale), value * F.gelu(gate))
    row.ms = timed([partial(geglu, one_of, scale=scale, out=out) for one_of in copies(x)])
    row.rate = 1e-9 * out.numel() * (4 + out.itemsize) / row.ms

    def eager(one_of: torch.Tensor) -> torch.Tensor:
        value, gate = one_of.chunk(2, -1)
        return value * F.gelu(gate)

    row.baseline_ms = timed([partial(eager, one_of) for one_of in copies(x)])
    return row


def quantised(shape: tuple[int, int]) -> Row:
    """Float16 to FP8; the baseline is torch's multiplication and cast."""
    row = Row("quantise", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    scale = torch.tensor(SCALE, device="cuda")
    out = torch.full(shape, math.nan, device="cuda").to(FP8)
    quantise(x, scale, out=out)
    row.error = relative(out.float() * scale, x)
    row.ms = timed([partial(quantise, one_of, scale, out=out) for one_of in copies(x)])
    row.rate = 3e-9 * x.numel() / row.ms
    row.baseline_ms = timed([lambda one_of=one_of: (one_of / scale).to(FP8) for one_of in copies(x)])
    return row


def maximum(shape: tuple[int, int]) -> Row:
    """Absolute maximum; the baseline is torch's."""
    row = Row("absolute_maximum", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    found = torch.zeros(1, device="cuda")
    row.error = relative(absolute_maximum(x, found), x.abs().max()[None])
    row.ms = timed([partial(absolute_maximum, one_of, found) for one_of in copies(x)])
    row.rate = 2e-9 * x.numel() / row.ms
    row.baseline_ms = timed([lambda one_of=one_of: one_of.abs().max() for one_of in copies(x)])
    return row


def stepped(shape: tuple[int, ...]) -> Row:
    """Guidance, Euler step and next input; the baseline is the same in torch's eager operations."""
    row = Row("guided_euler_step", "x".join(map(str, shape)), unit="TB/s")
    noise = torch.randn(2 * shape[0], *shape[1:], device="cuda", dtype=torch.float16)
    latents = torch.randn(shape, device="cuda")
    sample = torch.full_like(noise, math.nan)
    step = {"guidance": 8.0, "sigma_step": -0.7, "next_scale": 0.09}
    negative, positive = noise.float().chunk(2)
    expected = (latents + (negative + 8.0 * (positive - negative)) * -0.7) * 0.09
    guided_euler_step(noise, latents, sample, **step)
    row.error = relative(sample, torch.cat([expected, expected]))
    row.ms = timed([partial(guided_euler_step, noise, latents, sample, **step)])
    row.rate = 1e-9 * latents.numel() * 16 / row.ms

    def eager() -> torch.Tensor:
        negative, positive = noise.float().chunk(2)
        latents.add_(negative + 8.0 * (positive - negative), alpha=-0.7)
        return torch.cat([latents * 0.09] * 2).half()

    row.baseline_ms = timed([eager])
    return row


def upsampled(shape: tuple[int, ...]) -> Row:
    """Nearest-2x upsampling; the baseline is torch's on channels-last tensors."""
    row = Row("upsample", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    out = torch.full((shape[0], 2 * shape[1], 2 * shape[2], shape[3]), math.nan, device="cuda", dtype=torch.float16)
    upsample(x, out=out)
    row.error = relative(out, x.repeat_interleave(2, 1).repeat_interleave(2, 2))
    row.ms = timed([partial(upsample, one_of, out=out) for one_of in copies(x)])
    row.rate = 1e-9 * x.numel() * 10 / row.ms
    row.baseline_ms = timed(
        [partial(F.interpolate, one_of.permute(0, 3, 1, 2), scale_factor=2, mode="nearest") for one_of in copies(x)]
    )
    return row


def measurements(only: str | None) -> Iterator[tuple[str, str, Callable[[], Row]]]:
    """(kernel, shape, measurement) of every row asked for."""
    formats = {"fp8": FP8, "fp16": torch.float16}
    if only in {None, "conv"}:
        for zoom, dtype, shapes in (
            (1, "fp8", CONVOLUTIONS),
            (2, "fp8", UPSAMPLE_CONVOLUTIONS),
            (1, "fp16", FP16_CONVOLUTIONS),
            (2, "fp16", UPSAMPLE_CONVOLUTIONS),
        ):
            for shape in shapes:
                yield f"conv3x3 x{zoom} {dtype}", str(shape), partial(convolution, shape, formats[dtype], zoom=zoom)
    for dtype, torch_dtype in formats.items():
        if only in {None, "norm"}:
            for shape in GROUP_NORMS:
                yield f"group_norm {dtype}", str(shape), partial(normalised, shape, torch_dtype)
            for shape in LAYER_NORMS:
                yield f"layer_norm {dtype}", str(shape), partial(layer_normalised, shape, torch_dtype)
        if only in {None, "pointwise"}:
            for shape in GEGLUS:
                yield f"geglu {dtype}", str(shape), partial(gated, shape, torch_dtype)
    if only in {None, "pointwise"}:
        yield "quantise", "", partial(quantised, (65536, 640))
        yield "absolute_maximum", "", partial(maximum, (65536, 640))
        yield "guided_euler_step", "", partial(stepped, (8, 4, 128, 128))
        yield "upsample", "", partial(upsampled, (16, 64, 64, 640))
        yield "upsample", "", partial(upsampled, (8, 512, 512, 256))


def ceilings() -> dict[str, float]:
    """What this GPU reaches: TFLOP/s of 8192^3 GEMMs, TB/s of a copy (read and written)."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    one = torch.ones((), device="cuda")
    a8 = a.to(FP8)
    scaled = partial(torch._scaled_mm, a8, a8.t(), one, one, out_dtype=torch.float16, use_fast_accum=True)
    big = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(big)
    return {
        "GEMM fp16, TFLOP/s": 2e-9 * 8192**3 / timed([lambda: a @ a]),
        "GEMM fp8, TFLOP/s": 2e-9 * 8192**3 / timed([scaled]),
        "copy, TB/s": 2e-9 * big.numel() / timed([lambda: target.copy_(big)]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["conv", "norm", "pointwise"], help="these kernels alone (default: all)")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    began = time.perf_counter()
    reached = ceilings()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, {k: round(v, 2) for k, v in reached.items()})
    head = f"{'kernel':24} {'shape':26} {'ms':>8} {'rate':>8} {'':7} {'torch ms':>9} {'faster':>7} {'error':>9}"
    print(head, " configuration")
    rows = []
    for kernel, shape, measure in measurements(arguments.only):
        try:
            row = measure()
            row.ratio = row.baseline_ms / row.ms
        except Exception as error:  # noqa: BLE001 - a kernel that fails is a row, the others are measured all the same
            row = Row(kernel, shape, failure=f"{type(error).__name__}: {str(error)[:300]}")
        print(row, flush=True)
        rows.append(asdict(row))
        torch.cuda.empty_cache()
    print(f"{time.perf_counter() - began:.0f} s")
    if arguments.json:
        document = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "ceilings": reached,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
