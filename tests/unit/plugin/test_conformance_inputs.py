"""What the conformance suite feeds to an engine, and what it takes for rounding."""

from functools import cache
from pathlib import Path

import pytest
import torch

from pytest_sdxl.conformance.cases import EXTREME_TIMESTEPS, ODD_PROMPTS, VALUES, Case, usual
from pytest_sdxl.conformance.figures import figures, limit
from pytest_sdxl.conformance.inputs import Inputs
from pytest_sdxl.conformance.reference import Reference
from pytest_sdxl.conformance.running import rounded, run
from sdxl_engine.diff.walk import Call
from sdxl_engine.models.source import resolve_model


@cache
def reference():
    return Reference(resolve_model("shapes", Path("build")), "cpu", Path("build/engines"))


@pytest.fixture
def inputs(spec):
    """Over a walk that is made up: step 10 and the decoder, of one image."""
    reads = {name: torch.randn(tensor.at(2)) for name, tensor in spec.networks["unet"].inputs.items() if tensor.batched}
    latent = torch.randn(spec.networks["vae"].inputs["latent"].at(1))

    class Walked:
        outputs = reference().outputs

        def calls(self):
            return [
                Call("unet", 10, reads | {"timestep": torch.tensor([451.0])}, {}),
                Call("vae", None, {"latent": latent}, {}),
            ]

    return Inputs(reference().model, Walked())


def test_cases_are_told_apart_by_name():
    cases = [*VALUES, *EXTREME_TIMESTEPS, *ODD_PROMPTS]
    assert len({str(case) for case in cases}) == len(cases)
    assert str(usual("unet", (0, 1, 2))) == "unet, 3 images, step 10"
    assert str(Case("clip2", prompt="empty")) == "clip2, 1 image, empty prompt"


@pytest.mark.parametrize("network", ["clip1", "clip2"])
def test_odd_prompts_are_what_they_are_called(inputs, network):
    def positive(prompt):
        return inputs.of(Case(network, prompt=prompt))["input_ids"][1].tolist()

    start, end = positive("empty")[:2]
    assert len(set(positive("empty")[2:])) == 1
    assert positive("long")[0] == start
    assert positive("long").index(end) == 76
    assert len(set(positive("foreign"))) > 20


def test_every_row_is_another_and_negative_rows_come_first(inputs, spec):
    sixteen = tuple(range(16))
    given = inputs.of(usual("unet", sixteen))
    assert {name: tuple(tensor.shape) for name, tensor in given.items()} == {
        name: tensor.at(32) for name, tensor in spec.networks["unet"].inputs.items()
    }
    for name in ("sample", "encoder_hidden_states", "text_embeds"):
        negative, positive = (len(torch.unique(half, dim=0)) for half in given[name].chunk(2))
        assert positive == 16, name
        assert negative == (16 if name == "sample" else 1), name
    assert len(torch.unique(inputs.of(usual("vae", sixteen))["latent"], dim=0)) == 16


def test_a_batch_holds_what_smaller_ones_hold(inputs):
    full, part = inputs.of(usual("unet", (0, 1, 2))), inputs.of(usual("unet", (2,)))
    for name, tensor in part.items():
        if name != "timestep":
            torch.testing.assert_close(tensor, full[name][[2, 5]], rtol=0, atol=0)


def test_a_timestep_is_put_in_place_of_the_steps_own(inputs):
    assert inputs.of(Case("unet", step=10))["timestep"].tolist() == [451.0]
    assert inputs.of(Case("unet", step=10, timestep=340.5))["timestep"].tolist() == [340.5]


def in_tf32(values):
    fraction, exponent = torch.frexp(values)
    return torch.ldexp((fraction * 2**11).round() / 2**11, exponent)


def test_a_floor_tells_float32_from_tf32(inputs):
    """Ten bits of mantissa in the products of one network: far outside; another order of summation: inside."""
    given = inputs.of(usual("clip2"))
    expected, floors = reference().outputs("clip2", given), reference().floor("clip2", given, "fp32")
    coarse = reference()._engine("fp32")
    linear = [layer for layer in coarse._modules["clip2"].modules() if isinstance(layer, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, read: (in_tf32(read[0]),)) for layer in linear]
    found = run(coarse, "clip2", given)
    for hook in hooks:
        hook.remove()
    alone = {name: tensor[:1] for name, tensor in given.items()}
    other_order = run(reference()._engine("fp32"), "clip2", alone)
    for name, floor in floors.items():
        bound = limit(floor, "fp32").relative
        assert figures(found[name], expected[name]).relative > 10 * bound
        assert figures(other_order[name], expected[name][:1]).relative < bound


def test_the_reference_gets_what_the_engine_gets_to_see(inputs):
    half = reference()._engine("bf16")
    given = inputs.of(usual("vae"))
    seen = rounded(half, "vae", given)
    assert seen["latent"].dtype == torch.float32
    torch.testing.assert_close(seen["latent"], given["latent"].bfloat16().float(), rtol=0, atol=0)
    assert not torch.equal(seen["latent"], given["latent"])


def test_a_network_that_overflows_fp16_has_the_floor_of_bf16(inputs, monkeypatch):
    given = inputs.of(usual("clip1"))
    measured = Reference(reference().model, "cpu", Path("build/engines"))
    engines = {name: reference()._engine(name) for name in ("fp32", "bf16")}

    class Overflows:
        networks, device = engines["fp32"].networks, engines["fp32"].device

        def bind(self, network, buffers):
            return lambda: [buffers[name].fill_(torch.inf) for name in self.networks[network].outputs]

    monkeypatch.setattr(measured, "_engine", lambda name: engines.get(name) or Overflows())
    assert measured.floor("clip1", given, "fp16") == measured.floor("clip1", given, "bf16")
