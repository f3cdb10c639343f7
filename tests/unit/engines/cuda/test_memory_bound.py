"""LayerNorm, pending sums, attention to the text and quantisation against float64, on the very values they read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rounded import assert_rounded, slices
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, quantise
from sdxl_engine.engines.cuda.kernels.pointwise import add_up, layer_norm
from sdxl_engine.engines.cuda.kernels.text_attention import text_attention
from sdxl_engine.engines.cuda.layers import Norm, Pending

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]


def shapes(small, full):
    return [*small, *(pytest.param(shape, marks=needs_gpu) for shape in full)]


@pytest.fixture
def poisoned_empty(monkeypatch):
    """What the wrappers allocate is full of NaN, or of large numbers where the type has none."""
    for name in ("empty", "empty_like"):
        theirs = getattr(torch, name)

        def filled(*arguments, theirs=theirs, **options):
            made = theirs(*arguments, **options)
            made.view(torch.uint8).fill_(0x7F)
            return made

        monkeypatch.setattr(torch, name, filled)


def scale_of(fp8, device, value=2.0**-7):
    return torch.full((1,), value, device=device) if fp8 else None


FP8 = pytest.mark.parametrize("fp8", [False, True], ids=["fp16", "fp8"])
# Sums in fp32 of up to 2048 terms, and special functions, in units of the largest result of those compared at a time.
SUMS = 2.0**-19


def most(exact, out):
    """The largest magnitude that `out` can hold of what is exact."""
    return exact.abs().max().clamp(max=MOST if out.dtype == E4M3 else float("inf"))


class TestLayerNorm:
    @FP8
    @pytest.mark.parametrize(
        "shape",
        shapes(
            [(5, 640), (3, 1280), (2, 16), (4, 48), (1, 2048), (2, 1040)],
            [(16384, 1280), (65536, 640), (1001, 1936)],
        ),
        ids=str,
    )
    def test_of_the_sum_with_a_shift(self, shape, fp8, randn, device, poisoned_empty):
        x, shift = (randn(*shape) * 3 + 1).half(), randn(shape[1]) * 10
        norm = Norm(randn(shape[1]), randn(shape[1]), 1e-5)
        scale = scale_of(fp8, device)
        out = layer_norm(x, norm, shift, scale)
        weight, bias = norm.weight.double(), norm.bias.double()
        for rows in slices(out):
            exact = F.layer_norm(x[rows].double() + shift.double(), shape[1:], weight, bias, norm.eps)
            exact = exact / scale.double() if fp8 else exact
            assert_rounded(out[rows], exact, most(exact, out) * SUMS, rows)

    def test_the_variance_survives_a_mean_far_from_zero(self, randn):
        x = (randn(4, 640) + 500).half()
        norm = Norm(randn(640), randn(640), 1e-5)
        exact = F.layer_norm(x.double(), (640,), norm.weight.double(), norm.bias.double(), norm.eps)
        # A mean of 500 in fp32 is off by half of 2**-15.
        assert_rounded(layer_norm(x, norm, torch.zeros_like(norm.bias)), exact, exact.abs().max() * 2.0**-15)

    def test_what_cannot_be_normalised_is_refused(self, randn):
        norm = Norm(randn(48), randn(48), 1e-5)
        with pytest.raises(ValueError, match=r"weight has shape \(48,\), expected \(40,\)"):
            layer_norm(randn(3, 40).half(), norm, randn(40))
        with pytest.raises(ValueError, match=r"shift has shape \(40,\), expected \(48,\)"):
            layer_norm(randn(3, 48).half(), norm, randn(40))
        with pytest.raises(ValueError, match=r"stream is torch\.float32, expected torch\.float16"):
            layer_norm(randn(3, 48), norm, randn(48))
        with pytest.raises(ValueError, match=r"scale is \(2,\) .* expected one torch\.float32"):
            layer_norm(randn(3, 48).half(), norm, randn(48), randn(2))


class TestAddUp:
    @pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
    @pytest.mark.parametrize("per_image", [None, False, True], ids=["no shift", "shift", "shift per image"])
    @pytest.mark.parametrize(
        "shape",
        shapes([(2, 3, 5, 48), (1, 1, 1, 3), (2, 9, 7, 640)], [(16, 128, 128, 320), (3, 33, 17, 1280)]),
        ids=str,
    )
    def test_in_the_memory_of_the_value(self, shape, per_image, residual, randn):
        value, other = randn(*shape).half(), randn(*shape).half()
        # A row of a wider matrix, as the time embeddings are.
        shift = None if per_image is None else randn(shape[0], 2 * shape[3])[:, : shape[3]].half()
        shift = shift[0].float() if per_image is False else shift
        pending = Pending(value.clone(), shift, other if residual else None)
        out = add_up(pending)
        assert out is pending.value
        for image in range(len(value)):
            exact = value[image].double()
            if shift is not None:
                exact += shift[image].double() if per_image else shift.double()
            # Two additions in fp32; the first may be of large numbers whose sum the second brings close to zero.
            off = exact.abs() * 2.0**-24
            if residual:
                exact += other[image].double()
            assert_rounded(out[image], exact, off + exact.abs() * 2.0**-24, f"image {image}")

    def test_a_tensor_is_left_as_it_is(self, randn):
        x = randn(2, 3)
        assert add_up(x) is x

    def test_what_is_no_sum_is_refused(self, randn):
        value = randn(2, 3, 5, 16).half()
        with pytest.raises(ValueError, match=r"residual has shape \(2, 3, 5, 8\), expected \(2, 3, 5, 16\)"):
            add_up(Pending(value, residual=value[..., :8]))
        with pytest.raises(ValueError, match=r"shift has shape \(3, 16\) .* expected \(16,\) or \(2, 16\)"):
            add_up(Pending(value, randn(3, 16)))
        with pytest.raises(ValueError, match="residual is value itself"):
            add_up(Pending(value, None, value))


class TestTextAttention:
    @FP8
    @pytest.mark.parametrize(
        "shape",  # images, pixels, keys, heads, width
        shapes(
            [(2, 70, 77, 2, 64), (1, 1, 1, 1, 16), (2, 33, 20, 3, 12), (1, 300, 128, 1, 32)],
            [(16, 1024, 77, 20, 64), (16, 4096, 77, 10, 64), (3, 999, 77, 5, 40)],
        ),
        ids=str,
    )
    def test_against_softmax(self, shape, fp8, randn, device, poisoned_empty):
        images, pixels, keys, heads, width = shape
        query = (randn(images * pixels, heads * width) * 2).half()
        context = randn(images, keys, 2 * heads * width).half()
        scale = scale_of(fp8, device, 2.0**-9)
        out = text_attention(query, context, heads, scale)
        for image in range(images):
            rows = slice(image * pixels, (image + 1) * pixels)
            q = query[rows].double().view(pixels, heads, width).transpose(0, 1)
            k, v = (each.unflatten(-1, (heads, width)).transpose(0, 1) for each in context[image].double().chunk(2, -1))
            weights = torch.softmax(q @ k.transpose(-1, -2) * width**-0.5, -1)
            exact = (weights @ v).transpose(0, 1).flatten(1)
            # Weights, whose sum is 1, are rounded to fp16 before they meet the values.
            rounding = v.abs().max() * 2.0**-11
            if fp8:
                exact, rounding = exact / scale.double(), rounding / scale.double()
            assert_rounded(out[rows], exact, rounding + most(exact, out) * SUMS, f"image {image}")

    def test_a_score_far_above_the_others_takes_all(self, randn):
        context = torch.zeros(1, 77, 32, device=randn(1).device)
        context[0, 50, :16] = 100.0
        context[..., 16:] = randn(77, 16)
        query = torch.full((4, 16), 100.0, device=context.device)
        out = text_attention(query.half(), context.half(), 1)
        assert torch.equal(out, context[0, 50, 16:].half().expand(4, 16))

    def test_what_does_not_fit_is_refused(self, randn):
        context = randn(2, 7, 96).half()
        with pytest.raises(ValueError, match=r"query has shape \(6, 32\), expected \(6, 48\)"):
            text_attention(randn(6, 32).half(), context, 3)
        with pytest.raises(ValueError, match=r"query has shape \(7, 48\), expected \(6, 48\)"):
            text_attention(randn(7, 48).half(), context, 3)
        with pytest.raises(ValueError, match="cannot be split in two and by 5 heads"):
            text_attention(randn(6, 48).half(), context, 5)
        with pytest.raises(ValueError, match=r"query is torch\.float32"):
            text_attention(randn(6, 48), context, 3)


class TestQuantise:
    @pytest.mark.parametrize("shape", shapes([(1,), (3, 17), (2, 4099)], [(65536, 640), (8, 513, 511)]), ids=str)
    def test_the_value_over_the_scale(self, shape, randn, device, poisoned_empty):
        x, scale = (randn(*shape) * 4).half(), scale_of(True, device)
        out = quantise(x, scale)
        for rows in slices(out):
            # A quotient by a power of two is exact.
            assert_rounded(out[rows], x[rows].double() / scale.double(), name=rows)

    def test_large_values_saturate_and_nan_stays(self, device):
        x = torch.tensor([1e4, -1e4, 448.0, float("inf"), float("-inf"), float("nan")], device=device).half()
        out = quantise(x, torch.ones(1, device=device)).float().cpu()
        assert out[:5].tolist() == [448.0, -448.0, 448.0, 448.0, -448.0]
        assert out[5].isnan()

    def test_what_is_not_fp16_is_refused(self, randn):
        with pytest.raises(ValueError, match=r"x is torch\.float32, expected torch\.float16"):
            quantise(randn(3), randn(1))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_reaches_fp8(randn, device):
    """What went wrong before must not become 448."""
    x, scale = randn(2, 32).half(), torch.ones(1, device=device)
    x[1, 5] = float("nan")
    norm = Norm(randn(32), randn(32), 1e-5)
    assert layer_norm(x, norm, torch.zeros(32, device=device), scale).float().isnan().any(1).tolist() == [False, True]
    mixed = text_attention(x, randn(1, 7, 64).half(), 1, scale)
    assert mixed.float().isnan().any(1).tolist() == [False, True]


def test_they_compile_for_hopper_without_spilled_registers():
    script = Path(__file__).with_name("compile_memory_bound.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert set(kernels) == {"sum", "factors", "apply", "layer_norm", "add_up", "text_attention", "quantise"}
    for name, kernel in kernels.items():
        assert kernel["stack"] == 0, name
    assert all(kernels[name]["wide_loads"] for name in ("sum", "apply", "layer_norm", "add_up"))
    # Three programs of 128 threads per multiprocessor's 65536 registers at least.
    assert all(kernel["registers"] <= 168 for name, kernel in kernels.items() if name != "text_attention")
