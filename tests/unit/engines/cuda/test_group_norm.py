"""GroupNorm of pending sums and concatenations against float64, on the very values that the kernels read."""

import pytest
import torch
from rounded import AT_A_TIME, assert_rounded
from torch.nn import functional as F

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST
from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.layers import Norm, Pending

GPU = torch.cuda.is_available()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none"),
]
# B, H, W, C, C', groups: of 1 to 3 channels, one of channels of both inputs, several chunks, the last one ragged.
SMALL = [
    (2, 5, 7, 32, 0, 32),
    (1, 3, 3, 64, 32, 32),
    (2, 4, 6, 8, 16, 2),
    (2, 1, 1, 48, 0, 3),
    (1, 19, 13, 8, 8, 1),
    (1, 40, 29, 24, 0, 2),
]
FULL = [
    (16, 32, 32, 1280, 1280, 32),
    (4, 64, 64, 1280, 640, 32),
    (4, 128, 128, 320, 0, 32),
    (4, 128, 128, 640, 320, 32),
    (2, 512, 512, 256, 0, 32),
    (2, 1024, 1024, 128, 0, 32),
    (3, 33, 17, 96, 0, 32),
]
SHAPES = [*SMALL, *(pytest.param(shape, marks=needs_gpu) for shape in FULL)]
SUMS = 2.0**-18
"""Of sums, scale and offset in fp32, and of SiLU, in units of the largest result of those compared at a time."""


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """What the wrapper allocates is full of NaN."""
    theirs = torch.empty

    def filled(*arguments, **options):
        made = theirs(*arguments, **options)
        made.view(torch.uint8).fill_(0xFF)
        return made

    monkeypatch.setattr(torch, "empty", filled)


@pytest.fixture
def make(randn):
    """The value, the skip connection and the norm."""

    def make(shape, offset=0.5):
        images, height, width, own, other, groups = shape
        spread = 1 + randn(own).abs()
        value, skip = (spread.new_zeros((images, height, width, each), dtype=torch.float16) for each in (own, other))
        # In place: the largest take half a GB in fp32.
        for image in range(images):
            value[image] = randn(height, width, own).mul_(spread).add_(offset * spread)
            skip[image] = randn(height, width, other).mul_(3).sub_(offset)
        return value, skip if other else None, Norm(randn(own + other), randn(own + other), 1e-5, groups)

    return make


def check(out, total, skip, norm, silu, sums=SUMS, scale=None):
    """`out` against what `total` and `skip` are normalised to, in float64; some groups of an image at a time."""
    images, height, width, channels = out.shape
    size = channels // norm.groups
    step = max(1, AT_A_TIME // (height * width * size)) * size
    own = total.shape[-1]
    for image in range(images):
        for first in range(0, channels, step):
            part = slice(first, min(first + step, channels))
            values = [total[image, ..., part]]
            if part.stop > own:
                values.append(skip[image, ..., max(first - own, 0) : part.stop - own])
            x = torch.cat([each.double() for each in values], -1).permute(2, 0, 1)[None]
            weight, bias = norm.weight[part].double(), norm.bias[part].double()
            exact = F.group_norm(x, len(weight) // size, weight, bias, norm.eps)
            exact = (F.silu(exact) if silu else exact)[0].permute(1, 2, 0)
            exact = exact if scale is None else exact / scale.double()
            most = exact.abs().max() if scale is None else exact.abs().max().clamp(max=MOST)
            assert_rounded(out[image, ..., part], exact, most * sums, f"image {image}, channels from {first}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("silu", [True, False], ids=["silu", "plain"])
@pytest.mark.parametrize("fp8", [False, True], ids=["fp16", "fp8"])
def test_of_a_tensor_and_a_skip_connection(shape, silu, fp8, make, device):
    value, skip, norm = make(shape)
    before = value.clone()
    scale = torch.full((1,), 2.0**-7, device=device) if fp8 else None
    out, total = group_norm(value, norm, skip, silu=silu, scale=scale)
    assert out.dtype == (E4M3 if fp8 else torch.float16)
    assert total is value
    assert torch.equal(value, before)
    check(out, value, skip, norm, silu, scale=scale)


PENDING = [SMALL[4], SMALL[5], SMALL[2], pytest.param(FULL[1], marks=needs_gpu), pytest.param(FULL[2], marks=needs_gpu)]


@pytest.mark.parametrize("shape", PENDING, ids=str)
@pytest.mark.parametrize("shift", [None, "one", "per image"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not kept"])
def test_of_a_pending_sum(shape, shift, residual, keep, make, randn):
    value, skip, norm = make(shape)
    channels = shape[3]
    shifts = {
        None: None,
        "one": randn(channels) * 5,
        # A part of a wider matrix's rows, as the time embeddings are.
        "per image": (randn(shape[0], 2 * channels) * 5)[:, channels:].half(),
    }[shift]
    other = (randn(*value.shape) * 2).half() if residual else None
    exact_sum = value.double()
    if shifts is not None:
        exact_sum = exact_sum + (shifts.double() if shift == "one" else shifts.double()[:, None, None])
    # Two additions in fp32; the first may be of large numbers whose sum the second brings close to zero.
    off = exact_sum.abs() * 2.0**-24
    if residual:
        exact_sum = exact_sum + other.double()
    off += exact_sum.abs() * 2.0**-24
    pending = Pending(value.clone(), shifts, other)
    out, total = group_norm(pending, norm, skip, silu=True, keep=keep)
    assert total is pending.value
    if residual or keep:
        assert_rounded(total, exact_sum, off)
        check(out, total, skip, norm, silu=True)
    else:
        assert torch.equal(total, value)
        check(out, exact_sum, skip, norm, silu=True)


@pytest.mark.parametrize("shape", [SMALL[5], pytest.param((2, 128, 128, 320, 0, 32), marks=needs_gpu)], ids=str)
@pytest.mark.parametrize("pending", [False, True], ids=["tensor", "pending"])
def test_the_variance_survives_a_mean_far_from_zero(shape, pending, make, randn):
    """Sums of squares of values of 500 and more in fp32 would leave a variance of 1 without a right digit."""
    value, _, norm = make(shape, offset=500.0)
    assert value.float().mean() > 500
    total = value.clone()
    x = Pending(total, randn(shape[3]), torch.zeros_like(total)) if pending else total
    out, total = group_norm(x, norm, silu=False)
    # Means of up to 2000 are off by half of 2**-13 in fp32, and so is the offset that has them times the scale.
    check(out, total, None, norm, silu=False, sums=2.0**-13)


def test_an_images_bits_do_not_depend_on_its_batch(make, randn):
    value, skip, norm = make((3, 40, 29, 16, 8, 2))
    shift, residual = randn(3, 16), randn(*value.shape).half()
    together, kept = group_norm(Pending(value.clone(), shift, residual), norm, skip, silu=True)
    one = slice(1, 2)
    pending = Pending(value[one].clone(), shift[one], residual[one].clone())
    alone, kept_alone = group_norm(pending, norm, skip[one].clone(), silu=True)
    assert torch.equal(together[one], alone)
    assert torch.equal(kept[one], kept_alone)


def test_large_values_saturate_and_nan_stays(make, device):
    value, _, norm = make((2, 4, 4, 16, 0, 2))
    value[1, 0, 0, 3] = float("nan")
    out, _ = group_norm(value, norm, silu=False, scale=torch.full((1,), 1e-4, device=device))
    out = out.float()
    assert not out[0].isnan().any()
    assert (out[0].abs() == MOST).any()
    assert out[1, ..., :8].isnan().all()
    assert not out[1, ..., 8:].isnan().any()


def test_what_cannot_be_normalised_is_refused(make, randn):
    value, skip, norm = make((2, 4, 6, 16, 8, 2))
    with pytest.raises(ValueError, match="24 channels cannot be split in 5 groups"):
        group_norm(value, Norm(norm.weight, norm.bias, norm.eps, 5), skip, silu=True)
    with pytest.raises(ValueError, match=r"weight has shape \(24,\), expected \(16,\)"):
        group_norm(value, norm, silu=True)
    with pytest.raises(ValueError, match=r"value is torch\.float32, expected torch\.float16"):
        group_norm(value.float(), norm, skip, silu=True)
    with pytest.raises(ValueError, match=r"skip has shape \(2, 6, 4, 8\), expected \(2, 4, 6, 8\)"):
        group_norm(value, norm, skip.transpose(1, 2), silu=True)
    with pytest.raises(ValueError, match=r"scale is .* expected one torch\.float32"):
        group_norm(value, norm, skip, silu=True, scale=randn(2))
    with pytest.raises(ValueError, match=r"shift has shape \(24,\) .* expected \(16,\) or \(2, 16\)"):
        group_norm(Pending(value, randn(24)), norm, skip, silu=True)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason=f"needs an NVIDIA GPU: torch {torch.__version__} sees none")
def test_the_bits_are_the_same_every_time(keep, make, randn):
    """The pending sum is written where the pivots of the sums are read: 30 runs, each over a fresh value."""
    value, skip, norm = make((4, 128, 128, 320, 320, 32))
    shift, residual = randn(4, 320), (randn(*value.shape) + 100).half()
    first = group_norm(Pending(value.clone(), shift, residual), norm, skip, silu=True, keep=keep)
    for _ in range(30):
        again = group_norm(Pending(value.clone(), shift, residual), norm, skip, silu=True, keep=keep)
        assert torch.equal(again[0], first[0])
        assert torch.equal(again[1], first[1])
