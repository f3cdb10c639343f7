"""SmoothQuant on a small UNet of SDXL's topology: the same outputs, and inputs whose channels are more alike."""

import copy

import pytest
import torch
from small_sdxl import small_configs

from sdxl_engine.export.calibration import statistics_of
from sdxl_engine.export.recipes import INT8
from sdxl_engine.export.smoothing import smooth
from sdxl_engine.models.full_size import new_part
from sdxl_engine.models.unet_split import DeepUnet

BLOCK = "mid_block.attentions.0.transformer_blocks.1"
SMOOTHED = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ff.net.2")


@pytest.fixture(scope="module")
def unet():
    """In float64, so that what is exact by algebra is seen to be; norms with weights and biases that differ."""
    torch.manual_seed(0)
    made = new_part(
        "unet",
        small_configs(block_out_channels=(16, 16, 32), norm_num_groups=8, transformer_layers_per_block=(1, 1, 2))[
            "unet"
        ],
    )
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.double().eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def draw():
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 8, 8), (2, 77, 48), (2, 32), (2, 6))
    batches = [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(2)]

    def outputs(unet):
        deep = DeepUnet(unet)
        return [
            deep(sample, torch.tensor([501.0], dtype=torch.float64), text, pooled, sizes.abs() * 8)
            for sample, text, pooled, sizes in batches
        ]

    return outputs


@pytest.fixture(scope="module")
def measured(draw):
    def of(unet):
        watched = copy.deepcopy(unet)
        return statistics_of(watched, lambda: draw(watched), steps=1)

    return of


@pytest.fixture(scope="module")
def before(unet, measured):
    return measured(unet)


@pytest.fixture(scope="module")
def smoothed(unet, before):
    """The UNet, and its statistics as `smooth` says they are."""
    changed = copy.deepcopy(unet)
    return changed, smooth(changed, before, 0.8, INT8.keeps)


def test_the_outputs_are_the_same(unet, smoothed, draw):
    for expected, found in zip(draw(unet), draw(smoothed[0]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_statistics_are_those_of_the_changed_unet(smoothed, measured):
    unet, statistics = smoothed
    again = measured(unet)
    assert statistics.keys() == again.keys()
    for name, seen in statistics.items():
        torch.testing.assert_close(vars(seen), vars(again[name]), rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("layer", [*(f"{BLOCK}.{own}" for own in SMOOTHED), "mid_block.attentions.0.proj_in"])
def test_the_channels_of_an_input_are_more_alike(before, smoothed, layer):
    def unlike(seen):
        return float(seen.channels.log().std())

    assert unlike(smoothed[1][layer]) < 0.7 * unlike(before[layer])


def test_factors_are_those_of_the_source(unet, before, smoothed):
    name = f"{BLOCK}.ff.net.2"
    sizes, weights = before[name].channels, unet.get_submodule(name).weight.abs().amax(0).float()
    torch.testing.assert_close(smoothed[1][name].channels, sizes / (sizes**0.8 / weights**0.2), rtol=1e-5, atol=0)


def test_what_reads_the_text_or_is_kept_is_left_alone(unet, before):
    changed = copy.deepcopy(unet)
    after = smooth(changed, before, 0.8, lambda name: name.endswith("attn1.to_k"))
    for name in (f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_k", f"{BLOCK}.norm1"):
        torch.testing.assert_close(changed.get_submodule(name).weight, unet.get_submodule(name).weight, rtol=0, atol=0)
    torch.testing.assert_close(after[f"{BLOCK}.attn1.to_q"].channels, before[f"{BLOCK}.attn1.to_q"].channels)


def test_a_channel_that_is_always_zero_keeps_its_weights(unet, before, draw):
    changed, name = copy.deepcopy(unet), f"{BLOCK}.attn2.to_q"
    seen = dict(before)
    seen[name] = copy.deepcopy(before[name])
    seen[name].channels[3] = 0
    smooth(changed, seen, 0.8, INT8.keeps)
    torch.testing.assert_close(changed.get_submodule(name).weight[:, 3], unet.get_submodule(name).weight[:, 3])
    for expected, found in zip(draw(unet), draw(changed), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
