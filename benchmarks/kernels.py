"""The Triton kernels of the engine `cuda` on SDXL's shapes, against cuDNN and PyTorch: `python benchmarks/kernels.py`.

Each row first compares the kernel's output for one image (or its first rows) with float32 arithmetic on the very
inputs, then times, the convolutions after tuning: median of replays of a CUDA graph of several launches, by CUDA
events. Inputs that would fit the L2 cache are taken from as many copies in turn as it takes to leave it. The baseline
is float16: cuDNN with its own search, on channels-last tensors; torch's eager GroupNorm, LayerNorm, SiLU and attention.
Products, with and without GEGLU, are in `benchmarks/gemms.py`.

    TFLOP/s     operations that the kernel does (after upsampling 4 taps; cuDNN does 9)
    TB/s        bytes that the operation must move: inputs and outputs once, GroupNorm's input twice
    ceiling     the rate over what this GPU reached in the same run: a product of 8192^3 in the same precision; or the
                faster of a copy and a sum, whose bytes are counted likewise, read and written
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

from sdxl_engine.engines.cuda.kernels.conv3x3 import CONFIGURATIONS, conv3x3, tune_conv3x3
from sdxl_engine.engines.cuda.kernels.conv_weights import pack_conv3x3, pack_upsample_conv3x3
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3 as FP8
from sdxl_engine.engines.cuda.kernels.fp8 import quantise
from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import add_up, layer_norm
from sdxl_engine.engines.cuda.kernels.text_attention import text_attention
from sdxl_engine.engines.cuda.layers import Norm, Pending
from sdxl_engine.engines.cuda.timing import graphed_milliseconds

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
PENDING_SUMS = [(16, 128, 128, 320), (8, 512, 512, 256)]
TEXT_ATTENTIONS = [
    # images, pixels, heads
    (16, 1024, 20),
    (16, 4096, 10),
]
KEYS, HEAD = 77, 64
REPETITIONS = 10
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
    share: float = math.nan
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
            f"{self.kernel:24} {self.shape:26} {self.ms:8.4f} {self.rate:8.2f} {self.unit:7} {self.share:7.0%} "
            f"{self.baseline_ms:9.4f} {self.ratio:7.2f} {self.error:9.2e}  {chosen}"
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
    scale = torch.full((1,), SCALE, device=x.device)
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
    tune_conv3x3(inputs, weights, x_scale=scale, bias=bias, out=out)
    row.configuration = next(reversed(CONFIGURATIONS.chosen(inputs.device).values()))
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
    norm = Norm(weight, bias, 1e-5, 32)
    scale = torch.full((1,), SCALE, device="cuda") if dtype == FP8 else None
    out, _ = group_norm(x, norm, more, silu=True, scale=scale)
    one = (x[:1] if more is None else torch.cat([x[:1], more[:1]], -1)).permute(0, 3, 1, 2)
    expected = F.silu(F.group_norm(one.float(), 32, weight, bias, 1e-5)).permute(0, 2, 3, 1)
    row.error = relative(out[:1].float() * (1.0 if scale is None else scale), expected)
    row.ms = timed([partial(group_norm, one_of, norm, more, silu=True, scale=scale) for one_of in copies(x)])
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
    norm = Norm(weight, bias, 1e-5)
    scale = torch.full((1,), SCALE, device="cuda") if dtype == FP8 else None
    out = layer_norm(x, norm, shift, scale)
    expected = F.layer_norm(x.float() + shift, shape[1:], weight, bias, 1e-5)
    row.error = relative(out.float() * (1.0 if scale is None else scale), expected)
    row.ms = timed([partial(layer_norm, one_of, norm, shift, scale) for one_of in copies(x)])
    row.rate = 1e-9 * x.numel() * (2 + out.itemsize) / row.ms
    half, half_bias = weight.half(), bias.half()
    row.baseline_ms = timed([partial(F.layer_norm, one_of, shape[1:], half, half_bias) for one_of in copies(x)])
    return row


def attended(shape: tuple[int, int, int], dtype: torch.dtype) -> Row:
    """Attention of pixels to the text; the baseline is torch's fused attention on the same tensors."""
    images, pixels, heads = shape
    row = Row(f"text_attention {'fp8' if dtype == FP8 else 'fp16'}", f"{images}x{pixels}x{heads}x{HEAD}", unit="TB/s")
    query = torch.randn(images * pixels, heads * HEAD, device="cuda", dtype=torch.float16)
    context = torch.randn(images, KEYS, 2 * heads * HEAD, device="cuda", dtype=torch.float16)
    scale = torch.full((1,), SCALE, device="cuda") if dtype == FP8 else None

    def by_head(each: torch.Tensor) -> torch.Tensor:
        return each.unflatten(-1, (heads, HEAD)).transpose(1, 2)

    key, value = (by_head(each) for each in context.chunk(2, -1))

    def eager(one_of: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(by_head(one_of.unflatten(0, (images, pixels))), key, value)

    out = text_attention(query, context, heads, scale)
    first = F.scaled_dot_product_attention(
        by_head(query[:pixels].unflatten(0, (1, pixels))).float(), key[:1].float(), value[:1].float()
    )
    first = first.transpose(1, 2).reshape(pixels, -1)
    row.error = relative(out[:pixels].float() * (1.0 if scale is None else scale), first)
    row.ms = timed([partial(text_attention, one_of, context, heads, scale) for one_of in copies(query)])
    row.rate = 1e-9 * query.numel() * (2 + out.itemsize) / row.ms
    row.baseline_ms = timed([partial(eager, one_of) for one_of in copies(query)])
    return row


def added_up(shape: tuple[int, ...]) -> Row:
    """A value, a constant per image and channel, and a residual; the baseline is torch's sum of the three."""
    row = Row("add_up", "x".join(map(str, shape)), unit="TB/s")
    value, residual = (torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(2))
    shift = torch.randn(shape[0], shape[3], device="cuda")
    pending = [Pending(one_of, shift, residual) for one_of in copies(value)]
    expected = value[:1].float() + shift[0] + residual[:1].float()
    row.error = relative(add_up(pending[0])[:1], expected)
    row.ms = timed([partial(add_up, one_of) for one_of in pending])
    row.rate = 6e-9 * value.numel() / row.ms
    half = shift.half()[:, None, None]
    row.baseline_ms = timed([lambda one_of=one_of: one_of.value.add_(half).add_(residual) for one_of in pending])
    return row


def quantised(shape: tuple[int, int]) -> Row:
    """Float16 to FP8; the baseline is torch's multiplication and cast."""
    row = Row("quantise", "x".join(map(str, shape)), unit="TB/s")
    x = torch.randn(shape, device="cuda", dtype=torch.float16)
    scale = torch.full((1,), SCALE, device="cuda")
    row.error = relative(quantise(x, scale).float() * scale, x)
    row.ms = timed([partial(quantise, one_of, scale) for one_of in copies(x)])
    row.rate = 3e-9 * x.numel() / row.ms
    row.baseline_ms = timed([lambda one_of=one_of: (one_of / scale).to(FP8) for one_of in copies(x)])
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
            for shape in TEXT_ATTENTIONS:
                yield f"text_attention {dtype}", str(shape), partial(attended, shape, torch_dtype)
    if only in {None, "pointwise"}:
        yield "quantise", "", partial(quantised, (65536, 640))
        for shape in PENDING_SUMS:
            yield "add_up", str(shape), partial(added_up, shape)


def ceilings() -> dict[str, float]:
    """What this GPU reaches: TFLOP/s of 8192^3 GEMMs; TB/s, read and written, of a copy and of a sum in place."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    one = torch.ones((), device="cuda")
    a8 = a.to(FP8)
    scaled = partial(torch._scaled_mm, a8, a8.t(), one, one, out_dtype=torch.float16, use_fast_accum=True)
    big = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(big)
    terms, sums = big.view(torch.float16), target.view(torch.float16)
    return {
        "GEMM fp16, TFLOP/s": 2e-9 * 8192**3 / timed([lambda: a @ a]),
        "GEMM fp8, TFLOP/s": 2e-9 * 8192**3 / timed([scaled]),
        "copy, TB/s": 2e-9 * big.numel() / timed([lambda: target.copy_(big)]),
        "sum, TB/s": 3e-9 * big.numel() / timed([lambda: sums.add_(terms)]),
    }


def share_of_ceiling(row: Row, reached: dict[str, float]) -> float:
    """A row's rate over the one of its kind in `ceilings`; over the fastest of them where memory traffic counts."""
    if row.unit == "TB/s":
        # A copy alone is no ceiling: on an H200 it reached 2.66 TB/s, in the run in which `add_up` reached 4.32.
        return row.rate / max(rate for name, rate in reached.items() if name.endswith(row.unit))
    return row.rate / reached[f"GEMM {row.kernel.split()[-1]}, {row.unit}"]


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
    head = f"{'kernel':24} {'shape':26} {'ms':>8} {'rate':>8} {'':7} {'ceiling':>7}"
    print(head, f"{'torch ms':>9} {'faster':>7} {'error':>9}", " configuration")
    rows = []
    for kernel, shape, measure in measurements(arguments.only):
        try:
            row = measure()
            row.ratio = row.baseline_ms / row.ms
            row.share = share_of_ceiling(row, reached)
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
