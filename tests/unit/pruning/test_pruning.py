"""FLOPs, importance, choice and the smaller UNet."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from small_sdxl import small_configs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sdxl_engine.errors import UsageError
from sdxl_engine.models.full_size import CONFIGS, new_part
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.spec import CACHED_FEATURES
from sdxl_engine.models.unet_split import DeepUnet
from sdxl_engine.pruning import flops
from sdxl_engine.pruning.choice import choose
from sdxl_engine.pruning.importance import Importance, spread
from sdxl_engine.pruning.layers import Layer, attentions, layers_of, smaller_unet, without


@pytest.mark.parametrize(("network", "count"), [("unet", flops.deep_step), ("shallow_unet", flops.shallow_step)])
def test_flops_are_those_that_torch_counts(tiny, tiny_spec, network, count):
    loaded = load_networks(tiny)[network]
    interface = tiny_spec.networks[network]
    inputs = [torch.zeros(tensor.at(interface.rows(1))) for tensor in interface.inputs.values()]
    # torch 2.14 counts nothing of the CPU's fused attention; as two products it is counted by every version.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loaded(*inputs)
    own = count(loaded.unet.config, tiny_spec)
    assert sum(own.values()) == counter.get_total_flops()
    theirs = {name.partition(".unet.")[2]: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    if network == "unet":
        for layer in layers_of(loaded.unet):
            assert flops.layer_flops(own, layer) == theirs[str(layer)] > 0


def test_the_full_size_counts_the_layers_and_the_published_parameters():
    with torch.device("meta"):
        unet = new_part("unet", CONFIGS["unet"])
    assert len(layers_of(unet)) == 2 * 2 + 2 * 10 + 10 + 3 * 10 + 3 * 2
    assert next(iter(attentions(unet))) == "down_blocks.1.attentions.0"


SOME = {
    Layer("down_blocks.1.attentions.0", 0),
    Layer("down_blocks.2.attentions.1", 0),
    Layer("mid_block.attentions.0", 1),
    Layer("up_blocks.0.attentions.0", 0),
    Layer("up_blocks.0.attentions.0", 1),
    Layer("up_blocks.1.attentions.2", 0),
}


def test_the_smaller_unet_is_the_full_one_with_the_layers_skipped(unet, states, rows, tmp_path):
    smaller_unet(unet, SOME).save_pretrained(tmp_path)
    # As diffusers loads it, without anything of this project's.
    loaded = UNet2DConditionModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert len(layers_of(loaded)) == len(layers_of(unet)) - len(SOME)
    inputs = states.inputs(rows)
    with torch.no_grad():
        whole, found = DeepUnet(unet)(*inputs), DeepUnet(loaded)(*inputs)
        with without(unet, SOME):
            expected = DeepUnet(unet)(*inputs)
        again = DeepUnet(unet)(*inputs)
    for output, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-5)
    for output, wanted in zip(again, whole, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0, atol=0)
    assert [each.shape for each in found] == [each.shape for each in whole]
    assert (found[3] - whole[3]).abs().max() > 0.01, "dropping layers changed nothing"


def test_a_unet_that_a_constructor_made_loses_the_same_layers():
    """Its configuration remembers which arguments were not given, and diffusers takes their defaults again."""
    with torch.device("meta"):
        made = new_part("unet", small_configs(transformer_layers_per_block=(1, 1, 2))["unet"])
        assert "reverse_transformer_layers_per_block" in made.config["_use_default_values"]
        small = smaller_unet(made, SOME)
        again = smaller_unet(small, {Layer("up_blocks.0.attentions.1", 0)})
    assert [len(each.transformer_blocks) for each in attentions(small).values()] == [0, 1, 2, 1, 1, 0, 2, 2, 1, 1, 0]
    assert len(layers_of(again)) == len(layers_of(small)) - 1


def test_the_cached_features_keep_the_shapes_of_the_interface(unet, states, rows, tiny_spec):
    with torch.no_grad():
        outputs = DeepUnet(smaller_unet(unet, layers_of(unet)))(*states.inputs(rows))
    wanted = tiny_spec.networks["unet"].outputs
    for name, output in zip(("latent", *CACHED_FEATURES), outputs, strict=True):
        assert output.shape == wanted[name].at(2 * len(rows)), name


def test_a_layer_that_does_nothing_goes_first_and_one_that_does_much_stays(unet, states):
    idle, busy = Layer("up_blocks.0.attentions.1", 0), Layer("up_blocks.1.attentions.0", 0)
    for layer, factor in ((idle, 0.0), (busy, 30.0)):
        block = attentions(unet)[layer.attention].transformer_blocks[layer.place]
        with torch.no_grad():
            for linear in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
                linear.weight.mul_(factor)
                linear.bias.mul_(factor)
    importance = Importance(unet, states, spread(1, 2, STEPS))
    assert importance.loss([]) == 0
    assert importance.loss([idle]) == 0
    some = [layer for layer in layers_of(unet) if layer.attention.startswith("up_blocks.1") or layer == idle]
    chosen = choose(importance.loss, dict.fromkeys(some, 1), 10, 8.5 / 10)
    assert chosen.steps[0]["dropped"] == [str(idle)]
    assert chosen.steps[0]["loss"] == 0 < chosen.steps[1]["loss"]
    assert busy not in chosen.dropped


LAYERS = {Layer(name, index): cost for name, cost in (("a", 30), ("b", 7), ("c", 5)) for index in range(2)}
TOTAL = 200


@pytest.mark.parametrize("share", [0.9, 0.81, 0.7, 0.62])
def test_the_share_is_met_from_below_as_closely_as_one_layer_allows(share):
    worth = {layer: 3**number for number, layer in enumerate(LAYERS)}
    chosen = choose(lambda dropped: sum(worth[layer] for layer in dropped), LAYERS, TOTAL, share)
    left = TOTAL - sum(LAYERS[layer] for layer in chosen.dropped)
    assert chosen.share == left / TOTAL <= share
    assert all((left + LAYERS[layer]) / TOTAL > share for layer in chosen.dropped)
    assert chosen.loss == sum(worth[layer] for layer in chosen.dropped)


def test_what_two_layers_are_worth_together_is_measured_and_not_added_up():
    """Each alone costs much, both cost nothing, as where one undoes what the other does."""

    def loss(dropped):
        return {0: 0.0, 1: 50.0, 2: 0.0}[len([layer for layer in dropped if layer.attention == "b"])] + sum(
            layer.attention != "b" for layer in dropped
        )

    chosen = choose(loss, LAYERS, TOTAL, 0.93)
    assert chosen.dropped == {Layer("b", 0), Layer("b", 1)}


def test_a_share_that_cannot_be_reached_says_what_can():
    with pytest.raises(UsageError, match="cannot be brought to this share") as caught:
        choose(lambda _: 0.0, LAYERS, TOTAL, 0.5)
    assert "at least 0.5800" in str(caught.value)
