"""LayerNorm of x + shift against torch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.checks import FP8
from sdxl_engine.engines.cuda.kernels.layer_norm import layer_norm, tune_layer_norm

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]
SMALL = [(5, 640), (3, 1280), (1, 16), (7, 48), (4, 2048), (2, 1040)]
FULL = [(16384, 1280), (65536, 640), (16383, 1280), (1001, 1936)]
SHAPES = [*SMALL, *(pytest.param(shape, marks=needs_gpu) for shape in FULL)]
EPS = 1e-5


def reference(x, shift, weight, bias):
    shifted = x.double() if shift is None else x.double() + shift.double()
    return F.layer_norm(shifted, x.shape[1:], weight.double(), bias.double(), EPS)


def relative(got, expected):
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shifted", [True, False], ids=["shift", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_float16(shape, shifted, dtype, randn, poisoned):
    x = (randn(*shape) * 3 + 1).half()
    weight, bias, shift = (randn(shape[1]).to(dtype) for _ in range(3))
    shift = shift * 10 if shifted else None
    out = poisoned(shape)
    assert layer_norm(x, weight, bias, eps=EPS, shift=shift, out=out) is out
    assert relative(out, reference(x, shift, weight, bias)) < 4e-4


@pytest.mark.parametrize("shape", [SMALL[0], pytest.param(FULL[0], marks=needs_gpu)], ids=str)
def test_fp8_is_the_value_over_the_scale_saturated(shape, randn, poisoned, device):
    x, weight, bias = randn(*shape).half(), randn(shape[1]), randn(shape[1])
    scale = torch.tensor(2.0**-8, device=device)
    out = poisoned(shape, FP8)
    layer_norm(x, weight, bias, eps=EPS, scale=scale, out=out)
    expected = reference(x, None, weight, bias) / scale.double()
    assert (expected.abs() > 448).any()
    error = (out.double() - expected.clamp(-448, 448)).abs()
    assert (error <= expected.abs() * (2.0**-4 + 1e-4) + 2.0**-10 + 1e-6).all()


def test_the_variance_survives_a_mean_far_from_zero(randn):
    x, weight, bias = (randn(4, 640) + 500).half(), randn(640), randn(640)
    assert relative(layer_norm(x, weight, bias, eps=EPS), reference(x, None, weight, bias)) < 4e-4


def test_it_may_write_over_its_input(randn):
    x, weight, bias = randn(6, 640).half(), randn(640), randn(640)
    expected = layer_norm(x, weight, bias)
    assert torch.equal(layer_norm(x, weight, bias, out=x), expected)


def test_what_cannot_be_normalised_is_refused(randn):
    weight, bias = randn(40), randn(40)
    with pytest.raises(ValueError, match=r"expected \(M, C\) with C a multiple of 16 up to 2048"):
        layer_norm(randn(3, 40).half(), weight, bias)
    with pytest.raises(ValueError, match=r"weight has shape \(40,\), expected \(48,\)"):
        layer_norm(randn(3, 48).half(), weight, bias)
    with pytest.raises(ValueError, match=r"out has shape \(2, 48\), expected \(3, 48\)"):
        layer_norm(randn(3, 48).half(), randn(48), randn(48), out=randn(2, 48).half())


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none")
def test_every_candidate_computes_the_same_function(randn, poisoned):
    x, weight, bias = randn(1024, 1280).half(), randn(1280), randn(1280)
    expected = reference(x, None, weight, bias)
    for _, configuration in tune_layer_norm(x, weight, bias):
        out = poisoned(x.shape)
        layer_norm(x, weight, bias, out=out, configuration=configuration)
        assert relative(out, expected) < 4e-4, configuration
