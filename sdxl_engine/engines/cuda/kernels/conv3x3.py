"""3x3 convolution of NHWC activations as an implicit GEMM on Hopper's tensor cores, in FP8 or float16.

out[b, y, x, n] = scale[n] * sum over taps (i, j) and c of in[b, y+i-1, x+j-1, c] * w[n, i, j, c]  + bias, embedding,
residual. A program computes BLOCK_N output channels of BLOCK_M pixels, which are a rectangle of one image. Each step
of its K loop takes one tap and BLOCK_K channels: the tensor memory accelerator (TMA) copies the rectangle, shifted by
the tap, straight out of the dense NHWC tensor, and fills in zeros for pixels and channels that lie outside. So there
is no im2col, no border to keep in memory and, where the rectangles tile the image (every SDXL shape), no wasted row.

The product is taken as W (BLOCK_N x BLOCK_K) times X^T (BLOCK_K x BLOCK_M): Triton hands the four-dimensional copy to
the tensor cores without a detour through registers only as the right-hand operand.

After nearest-2x upsampling the same kernel runs as four 2x2 convolutions of the small map (`conv_weights.py`).

Roofline: 2 * taps * C * N operations per input pixel; it reads C * (1 or 2) bytes and writes 2 N bytes per output
pixel, plus 2 N for a residual. SDXL's shapes are all bound by the tensor cores. On an NVIDIA H100 80GB HBM3 (700 W, at
1410 to 1515 MHz under load, torch 2.11.0+cu130, Triton 3.6, 2026-11-28), TFLOP/s of 1979 (fp8) and 989 (fp16) that the
data sheet has at full clock, where C, N are

    map        1280, 1280 of 32x32   2560, 1280 of 32x32   1920, 640 of 64x64   640, 640 of 64x64   320, 320 of 128x128
    fp8              1210 (61 %)            1232                  1259                1079                 871 (44 %)
    fp16              717 (72 %)             718                   726                 619                 556 (56 %)
    cuDNN fp16        688                    698                   763                 713                 585

and for the decoder's 512, 512 of 256x256 1336 (68 %) in fp8 and 690 in fp16. After upsampling, counted as the 9 taps
that cuDNN does, 2592 to 2972 in fp8 and 1283 to 1522 in fp16 against cuDNN's 628 to 722.

FP8 accumulation: Hopper's FP8 tensor cores add with fewer bits than float32. By default, as in cuBLAS's fast mode,
all of K is added that way; `imprecise_steps` has the sums moved to float32 registers every so many products, which is
more exact and slower, and needs a tile of at most 128x128 not to run out of registers.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from sdxl_engine.engines.cuda.kernels.checks import INT32_MAX, multiprocessors, need_scalar, need_tensor
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3
from sdxl_engine.engines.cuda.kernels.tuning import Configuration, Configurations
from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.engines.cuda.kernels.conv_weights import ConvWeights

CONFIGURATIONS = Configurations()
_DTYPES = {"fp8": E4M3, "fp16": torch.float16}
_KEY = re.compile(r"(fp8|fp16) \d+x\d+x\d+x(\d+) (\d+) [14]")
"""Of a shape, as `_key` writes it: type, input channels, output channels."""


@triton.jit
def _conv_kernel(
    x_desc,  # (B, H, W, C), box (1, TILE_H, TILE_W, BLOCK_K)
    w_desc,  # (phases * N, taps * C), box (BLOCK_N, BLOCK_K)
    out_ptr,  # (B, H * ZOOM, W * ZOOM, N) float16
    x_scale_ptr,  # one float32, or None
    w_scale_ptr,  # (phases * N,) float32, or None
    bias_ptr,  # (N,) float32, or None
    embedding_ptr,  # (B, N) float16 or float32, or None
    residual_ptr,  # as out, or None
    images,
    height,
    width,
    channels,
    out_channels,
    PROGRAMS,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    SIDE: tl.constexpr,  # taps along one side: 3, or 2 for the phases of an upsampled map
    ZOOM: tl.constexpr,  # 1, or 2
    IMPRECISE: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    TAPS: tl.constexpr = SIDE * SIDE
    across = tl.cdiv(width, TILE_W)
    down = tl.cdiv(height, TILE_H)
    blocks_n = tl.cdiv(out_channels, BLOCK_N)
    per_rectangle = blocks_n * ZOOM * ZOOM
    steps = TAPS * tl.cdiv(channels, BLOCK_K)
    tiles = images * down * across * per_rectangle
    # Programs that run side by side take the channels (and phases) of the same rectangles, which come from L2 then.
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=FLATTEN):
        rectangle = tile // per_rectangle
        block_n = tile % blocks_n
        phase = tile % per_rectangle // blocks_n
        image = rectangle // (across * down)
        y0 = rectangle // across % down * TILE_H
        x0 = rectangle % across * TILE_W
        first_n = block_n * BLOCK_N
        weight_row = phase * out_channels + first_n
        top = y0 - 1 + phase // ZOOM
        left = x0 - 1 + phase % ZOOM
        accumulator = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        for step in range(steps):
            tap = step % TAPS
            channel = step // TAPS * BLOCK_K
            pixels = x_desc.load([image, top + tap // SIDE, left + tap % SIDE, channel]).reshape(BLOCK_M, BLOCK_K)
            # Past the last channel this reads the next tap's weights; the pixels are zeros there.
            weights = w_desc.load([weight_row, tap * channels + channel])
            accumulator = tl.dot(weights, pixels.T, accumulator, max_num_imprecise_acc=IMPRECISE)
        n = first_n + tl.arange(0, BLOCK_N)
        pixel = tl.arange(0, BLOCK_M)
        y = y0 + pixel // TILE_W
        x = x0 + pixel % TILE_W
        is_channel = n < out_channels
        mask = is_channel[:, None] & ((y < height) & (x < width))[None, :]
        if w_scale_ptr is not None:
            scale = tl.load(w_scale_ptr + phase * out_channels + n, mask=is_channel, other=0.0)
            accumulator = accumulator * (scale * tl.load(x_scale_ptr))[:, None]
        if bias_ptr is not None:
            accumulator += tl.load(bias_ptr + n, mask=is_channel, other=0.0)[:, None]
        if embedding_ptr is not None:
            embedding = tl.load(embedding_ptr + image * out_channels + n, mask=is_channel, other=0.0)
            accumulator += embedding.to(tl.float32)[:, None]
        position = (y * ZOOM + phase // ZOOM) * (width * ZOOM) + x * ZOOM + phase % ZOOM
        start = image.to(tl.int64) * (height * ZOOM) * (width * ZOOM) * out_channels
        offsets = position[None, :] * out_channels + n[:, None]
        if residual_ptr is not None:
            accumulator += tl.load(residual_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_ptr + start + offsets, accumulator.to(tl.float16), mask=mask)


def conv3x3(
    x: torch.Tensor,
    weights: ConvWeights,
    *,
    x_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    embedding: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    imprecise_steps: int | None = None,
    configuration: Configuration | None = None,
) -> torch.Tensor:
    """3x3 convolution, stride 1, padding 1; of the nearest-2x upsampled input where the weights are packed for that.

    Args:
        x: (B, H, W, C) float8_e4m3fn or float16, as the weights are; contiguous, with no border.
        weights: From `pack_conv3x3` or `pack_upsample_conv3x3`.
        x_scale: One float32, what the FP8 input is to be multiplied by; asked for with FP8 alone.
        bias: (N,) float32.
        embedding: (B, N) float16 or float32, added to every pixel of its image.
        residual: Like the output, float16, added in float32 before the one rounding. It may be `out` itself.
        out: (B, H, W, N) float16, or (B, 2H, 2W, N) after upsampling. None allocates it.
        imprecise_steps: FP8 products added in the tensor cores before their sum moves to float32: 32, 64 or 128.
            None: all of them.
        configuration: A launch configuration; None looks it up by shape.

    Raises:
        ValueError: A shape, type or device that the kernel cannot take.
    """
    zoom = 1 if weights.phases == 1 else 2
    images, height, width, channels = _checked_input(x, weights)
    shape = (images, height * zoom, width * zoom, weights.out_channels)
    if shape[1] * shape[2] * shape[3] > INT32_MAX:
        raise ValueError(f"an output image of {shape[1:]} has more than {INT32_MAX} elements, which are not addressed")
    if (x_scale is None) != (weights.scale is None):
        raise ValueError(f"x_scale is {x_scale}, expected one float32 with FP8 weights and None with float16 ones")
    if x_scale is not None:
        need_scalar("x_scale", x_scale, x)
    if bias is not None:
        need_tensor("bias", bias, shape=shape[3:], dtypes=(torch.float32,), like=x)
    if embedding is not None:
        dtypes = (torch.float16, torch.float32)
        need_tensor("embedding", embedding, shape=(images, shape[3]), dtypes=dtypes, like=x)
    if residual is not None:
        need_tensor("residual", residual, shape=shape, dtypes=(torch.float16,), like=x)
    if out is None:
        out = torch.empty(shape, dtype=torch.float16, device=x.device)
    need_tensor("out", out, shape=shape, dtypes=(torch.float16,), like=x)
    chosen = configuration or CONFIGURATIONS.chosen(x.device).get(_key(x, weights), candidates(x, weights)[0])
    if imprecise_steps is not None:
        smaller = {name: min(chosen[name], 128) for name in ("BLOCK_M", "BLOCK_N")}
        chosen = {**chosen, **smaller, "num_warps": 8, "per_multiprocessor": 1}
    tile_h, tile_w = rectangle(chosen["BLOCK_M"], height, width)
    block_n, block_k = chosen["BLOCK_N"], chosen["BLOCK_K"]
    tiles = (
        images
        * triton.cdiv(height, tile_h)
        * triton.cdiv(width, tile_w)
        * triton.cdiv(shape[3], block_n)
        * weights.phases
    )
    programs = min(tiles, multiprocessors(x.device) * chosen["per_multiprocessor"])
    _conv_kernel[(programs,)](
        TensorDescriptor.from_tensor(x, [1, tile_h, tile_w, block_k]),
        TensorDescriptor.from_tensor(weights.weight, [block_n, block_k]),
        out,
        x_scale,
        weights.scale,
        bias,
        embedding,
        residual,
        images,
        height,
        width,
        channels,
        shape[3],
        programs,
        BLOCK_M=chosen["BLOCK_M"],
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        TILE_H=tile_h,
        TILE_W=tile_w,
        SIDE=3 if zoom == 1 else 2,
        ZOOM=zoom,
        IMPRECISE=imprecise_steps,
        FLATTEN=bool(chosen["flatten"]),
        num_warps=chosen["num_warps"],
        num_stages=chosen["num_stages"],
    )
    return out


def tune_conv3x3(x: torch.Tensor, weights: ConvWeights, **arguments: torch.Tensor | None) -> list[float]:
    """Find the configuration to use for this shape on this kind of GPU and keep it.

    Args:
        x: As in `conv3x3`, full size.
        weights: As there.
        arguments: The rest of what `conv3x3` will be given; what `out` holds is lost.

    Returns:
        The times of `candidates`, ms; infinity of those that do not run.

    Raises:
        RuntimeError: None of them runs, or a CUDA graph is being captured.
    """
    if arguments.get("out") is None:
        zoom = 1 if weights.phases == 1 else 2
        shape = (x.shape[0], x.shape[1] * zoom, x.shape[2] * zoom, weights.out_channels)
        arguments["out"] = torch.empty(shape, dtype=torch.float16, device=x.device)
    launch = partial(conv3x3, x, weights, **arguments)  # type: ignore[arg-type]
    return CONFIGURATIONS.tune(
        x.device, _key(x, weights), candidates(x, weights), lambda configuration: launch(configuration=configuration)
    )


def is_tuned(x: torch.Tensor, weights: ConvWeights) -> bool:
    """Whether the fastest configuration for this shape is known."""
    return _key(x, weights) in CONFIGURATIONS.chosen(x.device)


def rectangle(pixels: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns), powers of two, of the rectangle of so many pixels that tiles the image with the least waste."""
    widths = [1 << power for power in range(pixels.bit_length())]
    tile_w = min(
        widths,
        key=lambda columns: (
            -(-width // columns) * columns * -(-height // (pixels // columns)) * (pixels // columns),
            -columns,
        ),
    )
    return pixels // tile_w, tile_w


def candidates(x: torch.Tensor, weights: ConvWeights) -> list[Configuration]:
    """The short list for this shape, of what was fastest for one of SDXL's; the first is used untuned."""
    return _candidates(x.dtype, weights.in_channels, weights.out_channels)


def valid_choices(choices: Mapping[str, Configuration]) -> dict[str, Configuration]:
    """What was tuned earlier, `CONFIGURATIONS.chosen`, as it was read from a file.

    Raises:
        EngineError: A shape, or a configuration, that is not this kernel's.
    """
    valid = {}
    for key, configuration in choices.items():
        shape = _KEY.fullmatch(key)
        known = _candidates(_DTYPES[shape[1]], int(shape[2]), int(shape[3])) if shape else []
        if configuration not in known:
            raise EngineError(
                f"the configuration chosen for the convolution {key!r} is none of its kernel's",
                got=str(configuration),
                expected=" or ".join(map(str, known)) or "a shape such as 'fp8 16x32x32x1280 1280 1'",
                source="the tuning choices of a built engine cuda",
                fix="remove that engine from the engine cache, then: sdxl-engine generate-engines --engine cuda",
            )
        valid[key] = known[known.index(configuration)]
    return valid


def _candidates(dtype: torch.dtype, in_channels: int, out_channels: int) -> list[Configuration]:
    per_line = 128 // dtype.itemsize
    sizes = [(256, 128, per_line, 8, 4, 1)]
    if dtype == E4M3:
        sizes.append((128, 128, per_line, 4, 3, 2))
    elif out_channels % 256 == 0:
        sizes.append((128, 256, per_line, 8, 4, 1))
    if out_channels % 128 and dtype != E4M3:
        sizes.append((256, 64, per_line, 8, 4, 1))
    if in_channels % per_line:
        sizes.append((256, 128, per_line // 2, 8, 4, 1))
    return [_configuration(*size) for size in sizes]


def _configuration(
    block_m: int, block_n: int, block_k: int, num_warps: int, num_stages: int, per_multiprocessor: int
) -> Configuration:
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
        "num_warps": num_warps,
        "num_stages": num_stages,
        "per_multiprocessor": per_multiprocessor,
        "flatten": 1,
    }


def _key(x: torch.Tensor, weights: ConvWeights) -> str:
    dtype = "fp8" if x.dtype == E4M3 else "fp16"
    return f"{dtype} {'x'.join(map(str, x.shape))} {weights.out_channels} {weights.phases}"


def _checked_input(x: torch.Tensor, weights: ConvWeights) -> tuple[int, int, int, int]:
    if x.dim() != 4 or x.shape[3] != weights.in_channels:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, H, W, {weights.in_channels})")
    need_tensor("x", x, dtypes=(weights.weight.dtype,), like=weights.weight, aligned=True)
    images, height, width, channels = x.shape
    return images, height, width, channels
