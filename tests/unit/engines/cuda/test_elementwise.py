"""The pointwise kernels against float64, and quantisation against torch's own rounding."""

import pytest
import torch
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.checks import FP8
from sdxl_engine.engines.cuda.kernels.elementwise import (
    absolute_maximum,
    geglu,
    guided_euler_step,
    quantise,
    upsample,
)

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]


def full(*shapes):
    return [pytest.param(shape, marks=needs_gpu) for shape in shapes]


def relative(got, expected):
    return float((got.double() - expected).norm() / expected.norm())


def gated(x):
    value, gate = x.double().chunk(2, -1)
    return value * F.gelu(gate)


@pytest.mark.parametrize(
    "shape", [(5, 512), (3, 96), (17, 1024), *full((16384, 10240), (65536, 5120), (33, 5184))], ids=str
)
def test_geglu(shape, randn, poisoned):
    x = (randn(*shape) * 2).half()
    out = poisoned((shape[0], shape[1] // 2))
    assert geglu(x, out=out) is out
    assert relative(out, gated(x)) < 4e-4


def test_gelu_keeps_the_digits_of_small_values(device):
    gate = torch.linspace(-5, 5, 1024, device=device).half()
    x = torch.cat([torch.full_like(gate, 64.0), gate])[None].contiguous()
    expected = gated(x)
    # Half a unit of float16, and where that is too small for its normal numbers half of the smallest subnormal.
    bound = expected.abs() * (2.0**-11 + 2e-5) + 2.0**-25 + 64 * 2e-7
    assert ((geglu(x).double() - expected).abs() <= bound).all()


def test_geglu_in_fp8(randn, poisoned, device):
    x, scale = (randn(6, 512) * 2).half(), torch.tensor(2.0**-6, device=device)
    out = poisoned((6, 256), FP8)
    geglu(x, scale=scale, out=out)
    expected = gated(x) / scale.double()
    assert (expected.abs() > 448).any()
    error = (out.double() - expected.clamp(-448, 448)).abs()
    assert (error <= expected.abs() * (2.0**-4 + 1e-4) + 2.0**-10 + 1e-4).all()


@pytest.mark.parametrize("shape", [(3, 48), (2, 5, 7, 16), (5001,), *full((16384, 1280))], ids=str)
def test_quantise_rounds_as_torch_does(shape, randn, poisoned, device):
    x, scale = randn(*shape).half() * 4, torch.tensor(2.0**-6, device=device)
    out = poisoned(shape, FP8)
    assert quantise(x, scale, out=out) is out
    expected = (x.float() / scale).clamp(-448, 448).to(FP8)
    assert torch.equal(out.view(torch.uint8), expected.view(torch.uint8))


def test_quantise_keeps_nan_and_saturates_infinity(device):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0] * 4, device=device).half()
    got = quantise(x, torch.ones(1, device=device)).float()[:4].cpu()
    assert got[0].isnan()
    assert got[1:].tolist() == [448.0, -448.0, 0.0]


@pytest.mark.parametrize("shape", [(3, 48), (40001,), *full((16384, 1280))], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_absolute_maximum_runs_on(shape, dtype, randn, device):
    maximum = torch.zeros((), device=device)
    x = randn(*shape).to(dtype)
    x.view(-1)[-1] = -7.0
    assert absolute_maximum(x, maximum) is maximum
    assert maximum.item() == 7.0
    absolute_maximum(x / 2, maximum)
    assert maximum.item() == 7.0
    x.view(-1)[0] = float("nan")
    absolute_maximum(x, maximum)
    assert maximum.item() == float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (3, 4, 5, 7), *full((8, 4, 128, 128))], ids=str)
def test_guided_euler_step(shape, dtype, randn, poisoned):
    noise = randn(2 * shape[0], *shape[1:]).to(dtype)
    latents = randn(*shape) * 11
    before = latents.double()
    sample = poisoned(noise.shape)
    step, scale = -0.7, 0.09
    guided_euler_step(noise, latents, sample, guidance=8.0, sigma_step=step, next_scale=scale)
    negative, positive = noise.double().chunk(2)
    expected = before + (negative + 8.0 * (positive - negative)) * step
    assert relative(latents, expected) < 1e-6
    assert relative(sample, torch.cat([expected * scale] * 2)) < 4e-4
    assert torch.equal(*sample.chunk(2))


@pytest.mark.parametrize("shape", [(2, 3, 5, 16), (1, 1, 1, 8), (2, 4, 4, 320), *full((16, 32, 32, 1280))], ids=str)
def test_upsample(shape, randn, poisoned):
    x = randn(*shape).half()
    out = poisoned((shape[0], 2 * shape[1], 2 * shape[2], shape[3]))
    assert upsample(x, out=out) is out
    assert torch.equal(out, x.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_what_they_cannot_take_is_refused(randn, device):
    with pytest.raises(ValueError, match=r"expected \(M, 2D\) with D a multiple of 16"):
        geglu(randn(4, 40).half())
    with pytest.raises(ValueError, match=r"x is torch\.float32, expected torch\.float16"):
        quantise(randn(4, 48), torch.ones(1, device=device))
    with pytest.raises(ValueError, match=r"scale is .* expected one torch\.float32"):
        quantise(randn(4, 48).half(), torch.ones(2, device=device))
    with pytest.raises(ValueError, match=r"maximum is .* expected one torch\.float32"):
        absolute_maximum(randn(4), torch.zeros(1, device=device).half())
    with pytest.raises(ValueError, match=r"noise has shape \(2, 4\), expected \(4, 4\)"):
        guided_euler_step(randn(2, 4), randn(2, 4), randn(4, 4).half(), guidance=8.0, sigma_step=1.0, next_scale=1.0)
    with pytest.raises(ValueError, match="C a multiple of 8"):
        upsample(randn(1, 2, 2, 12).half())
