"""GroupNorm with SiLU against torch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.checks import FP8
from sdxl_engine.engines.cuda.kernels.group_norm_silu import GroupNormSpace, group_norm, tune_group_norm

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]
# B, H, W, C1, C2, groups: groups of 1 to 3 channels, straddling ones (8 + 16 by 12), more pixels than one chunk.
SMALL = [(2, 5, 7, 32, 0, 32), (1, 3, 3, 64, 32, 32), (2, 4, 6, 8, 16, 2), (2, 1, 1, 48, 0, 3), (1, 70, 60, 8, 8, 1)]
FULL = [
    (16, 32, 32, 1280, 1280, 32),
    (4, 64, 64, 1280, 640, 32),
    (4, 128, 128, 320, 0, 32),
    (4, 128, 128, 640, 320, 32),
    (2, 512, 512, 256, 0, 32),
    (8, 1024, 1024, 128, 0, 32),
    (3, 33, 17, 96, 0, 32),
]
SHAPES = [*SMALL, *(pytest.param(shape, marks=needs_gpu) for shape in FULL)]
EPS = 1e-5


def reference(x, second, weight, bias, groups, silu):
    """Image by image, for what float64 takes."""
    images = []
    for number in range(x.shape[0]):
        image = x[number : number + 1] if second is None else torch.cat([x, second], -1)[number : number + 1]
        nchw = image.double().permute(0, 3, 1, 2)
        y = F.group_norm(nchw, groups, weight.double(), bias.double(), EPS)
        images.append((F.silu(y) if silu else y).permute(0, 2, 3, 1))
    return torch.cat(images)


def relative(got, expected):
    return float((got.double() - expected).norm() / expected.norm())


@pytest.fixture
def make(randn):
    def make(shape, offset=0.5):
        images, height, width, first, second, groups = shape
        spread = 1 + randn(first).abs()
        x = (randn(images, height, width, first) * spread + offset * spread).half()
        more = (randn(images, height, width, second) * 3 - offset).half() if second else None
        return x, more, randn(first + second), randn(first + second), groups

    return make


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("silu", [True, False], ids=["silu", "plain"])
def test_float16(shape, silu, make, poisoned):
    x, second, weight, bias, groups = make(shape)
    out = poisoned((*x.shape[:3], shape[3] + shape[4]))
    got = group_norm(x, weight, bias, groups=groups, eps=EPS, silu=silu, second=second, out=out)
    assert got is out
    assert relative(out, reference(x, second, weight, bias, groups, silu)) < 4e-4


@pytest.mark.parametrize("shape", [SMALL[1], pytest.param(FULL[1], marks=needs_gpu)], ids=str)
def test_fp8_is_the_value_over_the_scale_saturated(shape, make, poisoned, device):
    x, second, weight, bias, groups = make(shape)
    scale = torch.tensor(2.0**-8, device=device)
    out = poisoned((*x.shape[:3], shape[3] + shape[4]), FP8)
    group_norm(x, weight, bias, groups=groups, eps=EPS, second=second, scale=scale, out=out)
    expected = reference(x, second, weight, bias, groups, True) / scale.double()
    assert (expected.abs() > 448).any()
    # Half of a step of 3 mantissa bits, and below 2^-6 half of the step of the subnormals.
    error = (out.double() - expected.clamp(-448, 448)).abs()
    assert (error <= expected.abs() * (2.0**-4 + 1e-4) + 2.0**-10 + 1e-6).all()


def test_the_variance_survives_a_mean_far_from_zero(make, poisoned):
    x, _, weight, bias, groups = make((2, 20, 20, 32, 0, 4), offset=500.0)
    got = group_norm(x, weight, bias, groups=groups, eps=EPS, silu=False)
    assert relative(got, reference(x, None, weight, bias, groups, False)) < 4e-4


def test_an_images_bits_do_not_depend_on_its_batch_nor_on_used_space(make, device):
    x, second, weight, bias, groups = make((3, 70, 60, 16, 8, 2))
    space = GroupNormSpace.allocate(4, 70 * 60, 64, device)
    for tensor in (space.sums, space.pivots, space.slopes):
        tensor.fill_(float("nan"))
    together = group_norm(x, weight, bias, groups=groups, second=second, space=space)
    alone = group_norm(x[1:2].contiguous(), weight, bias, groups=groups, second=second[1:2].contiguous())
    assert torch.equal(together[1:2], alone)


def test_what_cannot_be_normalised_is_refused(make, randn):
    x, second, weight, bias, _ = make((2, 4, 6, 16, 8, 2))
    with pytest.raises(ValueError, match="24 channels cannot be split in 5 groups"):
        group_norm(x, weight, bias, groups=5, second=second)
    with pytest.raises(ValueError, match=r"weight has shape \(24,\), expected \(16,\)"):
        group_norm(x, weight, bias, groups=2)
    with pytest.raises(ValueError, match=r"x is torch\.float32, expected torch\.float16"):
        group_norm(x.float(), weight, bias, groups=2, second=second)
    with pytest.raises(ValueError, match=r"scale is .* expected one torch\.float32"):
        group_norm(x, weight, bias, groups=2, second=second, scale=randn(2))
    with pytest.raises(ValueError, match="space is too small for 2 images"):
        group_norm(x, weight, bias, groups=2, second=second, space=GroupNormSpace.allocate(1, 24, 16, x.device))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none")
def test_it_can_be_tuned_and_captured(make, poisoned):
    x, second, weight, bias, _ = make((2, 64, 64, 640, 320, 32))
    expected = group_norm(x, weight, bias, second=second)
    assert len(tune_group_norm(x, weight, bias, second=second)) > 1
    out = poisoned(expected.shape)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        group_norm(x, weight, bias, second=second, out=out)
    graph.replay()
    assert torch.equal(out, expected)
