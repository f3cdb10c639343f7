"""The implicit GEMM convolution against torch's in float64, on the very values that the kernel reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels import conv3x3 as module
from sdxl_engine.engines.cuda.kernels.conv3x3 import conv3x3, rectangle, tune_conv3x3
from sdxl_engine.engines.cuda.kernels.conv_weights import pack_conv3x3, pack_upsample_conv3x3
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3 as FP8

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]
X_SCALE = 0.01
# B, H, W, C, N: one rectangle, several with a ragged edge, one pixel, C and N that are no multiple of a tile.
SMALL = [(1, 4, 8, 16, 16), (2, 5, 7, 48, 24), (3, 1, 1, 32, 8), (1, 5, 17, 80, 40)]
FULL = [
    (16, 32, 32, 1280, 1280),
    (2, 32, 32, 2560, 1280),
    (2, 64, 64, 640, 640),
    (2, 64, 64, 1920, 640),
    (1, 128, 128, 320, 320),
    (1, 128, 128, 960, 320),
    (2, 31, 45, 336, 328),
]
SHAPES = [*SMALL, *(pytest.param(shape, marks=needs_gpu) for shape in FULL)]


def small_tiles():
    """In the interpreter, tiles so small that several are needed."""
    sizes = {"BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 32, "num_warps": 4, "num_stages": 2}
    return None if GPU else {**sizes, "per_multiprocessor": 1, "flatten": 1}


def make(shape, dtype, randn, device):
    """Inputs for the kernel, and the same in float64."""
    images, height, width, channels, out_channels = shape
    weight = randn(out_channels, channels, 3, 3) * 0.05
    x = randn(images, height, width, channels)
    if dtype != FP8:
        return x.half(), x.half().double(), weight, None
    scale = torch.tensor(X_SCALE, device=device)
    x = (x / scale).clamp(-448, 448).to(FP8)
    return x, x.double() * scale.double(), weight, scale


def unpacked(weights, phase=0):
    """One phase's weights as the kernel reads them, (N, C, side, side) in float64."""
    rows = weights.weight.double()
    if weights.scale is not None:
        rows = rows * weights.scale.double()[:, None]
    side = 3 if weights.phases == 1 else 2
    phases = rows.reshape(weights.phases, weights.out_channels, side, side, weights.in_channels)
    return phases[phase].permute(0, 3, 1, 2)


def convolved(x, weights):
    """(B, H, W, N) float64; after upsampling, the four phases by explicit padding."""
    nchw = x.permute(0, 3, 1, 2)
    if weights.phases == 1:
        return F.conv2d(nchw, unpacked(weights), padding=1).permute(0, 2, 3, 1)
    images, _, height, width = nchw.shape
    out = torch.empty(images, weights.out_channels, 2 * height, 2 * width, dtype=torch.float64, device=x.device)
    for row in (0, 1):
        for column in (0, 1):
            padded = F.pad(nchw, (1 - column, column, 1 - row, row))
            out[:, :, row::2, column::2] = F.conv2d(padded, unpacked(weights, 2 * row + column))
    return out.permute(0, 2, 3, 1)


def relative(got, expected):
    """Of the norm; image by image, as tensors or as what makes those of one image."""
    off = whole = 0.0
    for number, image in enumerate(got):
        exact = expected(number) if callable(expected) else expected[number]
        off += float((image.double() - exact).square().sum())
        whole += float(exact.square().sum())
    return (off / whole) ** 0.5


def tolerance(dtype, products, roundings=1):
    """Of the norm: roundings to float16, and what the sum of the products loses.

    Hopper's tensor cores add 16 float16 or 32 FP8 products at a time. Of the sum they keep 23 or 13 bits behind the
    point and cut off the rest: in FP8, where this is most of the bound, half of a unit on average. The interpreter
    adds one at a time and rounds.
    """
    if GPU:
        lost = products / 32 * 2.0**-14 if dtype == FP8 else products / 16 * 2.0**-23
    else:
        lost = products * 2.0**-24
    return roundings * 2.0**-11 + lost


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, FP8], ids=str)
@pytest.mark.parametrize("pack", [pack_conv3x3, pack_upsample_conv3x3])
def test_a_convolution_with_everything_in_its_epilogue(shape, dtype, pack, randn, poisoned, device):
    x, exact, weight, scale = make(shape, dtype, randn, device)
    weights = pack(weight, dtype)
    zoom = 1 if weights.phases == 1 else 2
    out = poisoned((shape[0], shape[1] * zoom, shape[2] * zoom, shape[4]))
    bias, embedding, residual = randn(shape[4]), randn(shape[0], shape[4]), randn(*out.shape).half()
    got = conv3x3(
        x,
        weights,
        x_scale=scale,
        bias=bias,
        embedding=embedding,
        residual=residual,
        out=out,
        configuration=small_tiles(),
    )
    assert got is out

    def expected(image):
        one = slice(image, image + 1)
        return (convolved(exact[one], weights) + bias + embedding[image] + residual[one].double())[0]

    assert relative(out, expected) < tolerance(dtype, weights.weight.shape[1])


@pytest.mark.parametrize("dtype", [torch.float16, FP8], ids=str)
def test_a_bare_convolution_and_one_that_adds_to_its_output(dtype, randn, device):
    x, exact, weight, scale = make((2, 5, 7, 48, 24), dtype, randn, device)
    weights = pack_conv3x3(weight, dtype)
    expected = convolved(exact, weights)
    out = conv3x3(x, weights, x_scale=scale, configuration=small_tiles())
    assert relative(out, expected) < tolerance(dtype, weights.weight.shape[1])
    conv3x3(x, weights, x_scale=scale, residual=out, out=out, configuration=small_tiles())
    assert relative(out, 2 * expected) < tolerance(dtype, weights.weight.shape[1], roundings=2)


def test_an_images_result_does_not_depend_on_its_batch(randn, device):
    x, _, weight, _ = make((3, 5, 7, 48, 24), torch.float16, randn, device)
    weights = pack_conv3x3(weight, torch.float16)
    together = conv3x3(x, weights, configuration=small_tiles())
    alone = conv3x3(x[1:2].contiguous(), weights, configuration=small_tiles())
    assert torch.equal(together[1:2], alone)


def test_phase_weights_in_float64_are_the_upsampled_convolution(randn):
    x, weight = randn(2, 16, 5, 6).double(), randn(8, 16, 3, 3)
    weights = pack_upsample_conv3x3(weight, torch.float16)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight.double(), padding=1)
    assert relative(convolved(x.permute(0, 2, 3, 1), weights), expected.permute(0, 2, 3, 1)) < 5e-4


def test_fp8_weights_use_the_whole_range_by_channel_and_survive_zeros(randn):
    weight = randn(8, 16, 3, 3)
    weight[3] = 0
    weight[5] *= 1e4
    weights = pack_conv3x3(weight)
    rows = weights.weight.float().abs().amax(1)
    assert rows[3] == 0
    assert torch.equal(rows[torch.arange(8, device=rows.device) != 3].cpu(), torch.full((7,), 448.0))
    assert relative(unpacked(weights)[5], weight[5].double()) < 0.04


@pytest.mark.parametrize(
    ("pixels", "height", "width", "expected"),
    [
        (128, 32, 32, (4, 32)),
        (128, 64, 64, (2, 64)),
        (128, 128, 128, (1, 128)),
        (256, 32, 32, (8, 32)),
        (32, 9, 33, (2, 16)),
        (32, 1, 1, (1, 32)),
    ],
)
def test_rectangles_tile_the_image(pixels, height, width, expected):
    assert rectangle(pixels, height, width) == expected


def test_what_cannot_be_convolved_is_refused(randn, device):
    x, _, weight, scale = make((2, 5, 7, 48, 24), FP8, randn, device)
    weights = pack_conv3x3(weight)
    with pytest.raises(ValueError, match=r"expected \(B, H, W, 48\)"):
        conv3x3(x[..., :32], weights, x_scale=scale)
    with pytest.raises(ValueError, match=r"x is torch\.float16, expected torch\.float8_e4m3fn"):
        conv3x3(x.half(), weights, x_scale=scale)
    with pytest.raises(ValueError, match="x_scale is None, expected one float32"):
        conv3x3(x, weights)
    with pytest.raises(ValueError, match=r"bias has shape \(23,\), expected \(24,\)"):
        conv3x3(x, weights, x_scale=scale, bias=randn(23))
    with pytest.raises(ValueError, match=r"out has shape .* expected \(2, 5, 7, 24\)"):
        conv3x3(x, weights, x_scale=scale, out=torch.empty(2, 5, 7, 32, dtype=torch.float16, device=device))
    with pytest.raises(ValueError, match="expected a contiguous tensor"):
        conv3x3(x.transpose(1, 2), weights, x_scale=scale)
    with pytest.raises(ValueError, match="N a multiple of 8 and C of 16"):
        pack_conv3x3(randn(24, 40, 3, 3))
    with pytest.raises(ValueError, match=r"cannot be packed as torch\.float32"):
        pack_conv3x3(weight, torch.float32)


def test_it_compiles_for_hopper_with_both_operands_in_shared_memory():
    """In a process of its own, which has the compiler in place of the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_conv3x3.py")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert len(kernels) == 5
    for name, kernel in kernels.items():
        operands = ".f32.e4m3.e4m3" if name.startswith("fp8") else ".f32.f16.f16"
        assert [kind.endswith(operands) for kind in kernel["wgmma"]] == [True]
        assert kernel["shared"] <= 227 * 1024
        assert (kernel["tiles_to_registers"], kernel["spilled"], kernel["serialized"]) == (0, 0, False)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none")
class TestOnAGpu:
    def test_every_candidate_computes_the_same_function(self, randn, device):
        for dtype in (torch.float16, FP8):
            x, exact, weight, scale = make((4, 32, 32, 320, 320), dtype, randn, device)
            weights = pack_conv3x3(weight, dtype)
            expected = convolved(exact, weights)
            for configuration in module.candidates(x, weights):
                out = torch.full(expected.shape, float("nan"), dtype=torch.float16, device=device)
                conv3x3(x, weights, x_scale=scale, out=out, configuration=configuration)
                assert relative(out, expected) < tolerance(dtype, weights.weight.shape[1]), configuration

    def test_fewer_imprecise_steps_are_more_exact(self, randn, device):
        x, exact, weight, scale = make((2, 32, 32, 1280, 128), FP8, randn, device)
        weights = pack_conv3x3(weight)
        expected = convolved(exact, weights)
        fast = relative(conv3x3(x, weights, x_scale=scale), expected)
        careful = relative(conv3x3(x, weights, x_scale=scale, imprecise_steps=32), expected)
        assert careful < fast
        assert careful < tolerance(FP8, products=32)

    def test_the_kernel_can_be_captured(self, randn, device):
        x, _, weight, scale = make((2, 32, 32, 64, 64), FP8, randn, device)
        weights = pack_conv3x3(weight)
        tune_conv3x3(x, weights, x_scale=scale)
        expected = conv3x3(x, weights, x_scale=scale)
        out = torch.full_like(expected, float("nan"))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            conv3x3(x, weights, x_scale=scale, out=out)
        graph.replay()
        assert torch.equal(out, expected)
