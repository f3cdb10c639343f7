"""Results depend on the inputs alone: not on earlier calls, nor on what the buffers held before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.cases import usual
from sdxl_engine.models.spec import CACHED_FEATURES, NETWORKS

if TYPE_CHECKING:
    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from pytest_sdxl.conformance.reference import Reference
    from pytest_sdxl.conformance.running import Tensors
    from sdxl_engine.engines.base import Engine

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("network", NETWORKS)
def test_determinism(engine: Engine, network: str, inputs: Inputs) -> None:
    """Two runs on the same inputs and buffers give the same bits."""
    from pytest_sdxl.conformance.running import Binding, rows_of

    given = inputs.of(usual(network))
    binding = Binding(engine, network, rows_of(engine, network, given))
    first, second = binding.run(given), binding.run(given)
    for name, tensor in first.items():
        other = int((second[name] != tensor).sum())
        if other:
            told = f"{other} of {tensor.numel()} values differ between two runs, expected the same bits"
            pytest.fail(f"{usual(network)}, output {name}: {told}", pytrace=False)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_stays_of_the_last_batch(
    engine: Engine, network: str, inputs: Inputs, reference: Reference, compare: Comparison
) -> None:
    """A second batch in the buffers of a first gives what it gives in buffers of its own."""
    from pytest_sdxl.conformance.running import Binding, rounded, rows_of, run

    before, after = inputs.of(usual(network, (1,))), inputs.of(usual(network, (0,)))
    floors = reference.floor(network, rounded(engine, network, after), compare.precision)
    binding = Binding(engine, network, rows_of(engine, network, before))
    binding.run(before)
    compare(
        f"{usual(network)}, after another batch", binding.run(after), run(engine, network, after), floors, "it alone"
    )


def test_cached_features_do_not_leak(engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison) -> None:
    """The shallow UNet after two batches of the deep one gives what it gives where the first was not."""
    from pytest_sdxl.conformance.running import Binding, rounded

    deep = inputs.of(usual("unet"))
    shallow = inputs.of(usual("shallow_unet"))
    step = {name: tensor for name, tensor in shallow.items() if name not in CACHED_FEATURES}
    other = deep | {"sample": inputs.of(usual("unet", (1,)))["sample"]}

    def last(batches: list[Tensors]) -> Tensors:
        first = Binding(engine, "unet", 2)
        second = Binding(engine, "shallow_unet", 2, shared=first)
        for batch in batches:
            first.run(batch)
            outputs = second.run(step)
        return outputs

    floors = reference.floor("shallow_unet", rounded(engine, "shallow_unet", shallow), compare.precision)
    compare("shallow_unet, after another batch", last([other, deep]), last([deep]), floors, "it alone")


@pytest.mark.parametrize("network", NETWORKS)
def test_what_outputs_held_has_no_effect(
    engine: Engine, network: str, inputs: Inputs, reference: Reference, compare: Comparison
) -> None:
    """Every element of the outputs is written, and no old value gets into it: not NaN, which times 0 is NaN."""
    from pytest_sdxl.conformance.running import Binding, rounded, rows_of

    given = inputs.of(usual(network))
    floors = reference.floor(network, rounded(engine, network, given), compare.precision)
    binding = Binding(engine, network, rows_of(engine, network, given))
    clean = binding.run(given)
    for fill in (math.nan, 1e4):
        what = f"{usual(network)}, on outputs that held {fill:g}"
        compare(what, binding.run(given, fill=fill), clean, floors, "it on zeros")


@pytest.mark.parametrize("network", NETWORKS)
def test_inputs_are_left_alone(engine: Engine, network: str, inputs: Inputs) -> None:
    """No network writes to its inputs, which others may share."""
    from pytest_sdxl.conformance.running import Binding, rows_of

    given = inputs.of(usual(network))
    binding = Binding(engine, network, rows_of(engine, network, given))
    binding.run(given)
    for name, tensor in given.items():
        kept = binding.buffers[name]
        changed = int((kept != tensor.to(kept.device, kept.dtype)).sum())
        if changed:
            pytest.fail(f"{network}, input {name}: {changed} of {tensor.numel()} values were changed", pytrace=False)
