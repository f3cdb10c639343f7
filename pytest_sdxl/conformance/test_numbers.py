"""NaN and infinity: a broken row must show, and must stay one row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.cases import usual

if TYPE_CHECKING:
    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from pytest_sdxl.conformance.reference import Reference
    from pytest_sdxl.conformance.running import Tensors
    from sdxl_engine.engines.base import Engine

pytestmark = pytest.mark.conformance

SPOILT = [
    ("unet", "sample"),
    ("unet", "encoder_hidden_states"),
    ("shallow_unet", "sample"),
    ("shallow_unet", "up.1.sample"),
    ("vae", "latent"),
]
"""One element of these is spoilt; the text encoders read whole numbers."""

bad = pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
spoilt = pytest.mark.parametrize(("network", "name"), SPOILT)
LAST = 1
"""The row that is spoilt, of two."""


def _two_rows(network: str, inputs: Inputs) -> Tensors:
    return inputs.of(usual(network, (0, 1) if network == "vae" else (0,)))


def _with(inputs: Tensors, name: str, bad: float) -> Tensors:
    changed = inputs[name].clone()
    changed[LAST].view(-1)[changed[LAST].numel() // 2] = bad
    return inputs | {name: changed}


@bad
@spoilt
def test_bad_values_show(
    engine: Engine, inputs: Inputs, reference: Reference, network: str, name: str, bad: float
) -> None:
    """NaN or infinity in a row comes out as not finite in that row, in every output where the reference has it so."""
    from pytest_sdxl.conformance.running import rounded, run

    given = rounded(engine, network, _with(_two_rows(network, inputs), name, bad))
    expected, got = reference.outputs(network, given), run(engine, network, given)
    for output, tensor in got.items():
        if output in expected and not expected[output][LAST].isfinite().all() and tensor[LAST].isfinite().all():
            pytest.fail(f"{network}, output {output}: {bad} in {name} is hidden, its row is finite", pytrace=False)


@bad
@spoilt
def test_bad_rows_stay_alone(
    engine: Engine,
    inputs: Inputs,
    reference: Reference,
    compare: Comparison,
    network: str,
    name: str,
    bad: float,
) -> None:
    """NaN or infinity in one row leaves the other rows as they were."""
    from pytest_sdxl.conformance.running import rounded, run

    clean = _two_rows(network, inputs)
    floors = reference.floor(network, rounded(engine, network, inputs.of(usual(network))), compare.precision)

    def others(batch: Tensors) -> Tensors:
        return {output: tensor[:LAST] for output, tensor in batch.items()}

    expected, got = others(run(engine, network, clean)), others(run(engine, network, _with(clean, name, bad)))
    compare(f"{network}, beside a row with {bad} in {name}", got, expected, floors, "the same row beside a sound one")
