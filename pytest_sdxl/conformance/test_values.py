"""The engine computes the reference's function: within bounds that follow from measured rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.cases import EXTREME_TIMESTEPS, ODD_PROMPTS, VALUES, Case
from sdxl_engine.models.spec import CACHED_FEATURES

if TYPE_CHECKING:
    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from pytest_sdxl.conformance.reference import Reference
    from sdxl_engine.engines.base import Engine

pytestmark = pytest.mark.conformance


def hold(case: Case, engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison) -> None:
    """Compare one network on the inputs of a case with the reference on the same, as the engine rounds them."""
    from pytest_sdxl.conformance.running import rounded, run

    __tracebackhide__ = True
    given = rounded(engine, case.network, inputs.of(case))
    floors = reference.floor(case.network, given, compare.precision)
    compare(case, run(engine, case.network, given), reference.outputs(case.network, given), floors)


@pytest.mark.parametrize("case", VALUES, ids=str)
def test_values(case: Case, engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison) -> None:
    """Each network on a usual prompt; the UNets at the first, a middle and the last step of their kind."""
    hold(case, engine, inputs, reference, compare)


@pytest.mark.parametrize("case", EXTREME_TIMESTEPS, ids=str)
def test_extreme_timesteps(
    case: Case, engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison
) -> None:
    """The UNets at timesteps 0, 1 and 999, which the schedule has not, and at 340.5, which is no whole number."""
    hold(case, engine, inputs, reference, compare)


@pytest.mark.parametrize("case", ODD_PROMPTS, ids=str)
def test_odd_prompts(case: Case, engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison) -> None:
    """The text encoders on an empty prompt, one of more than 77 tokens, and one in other scripts."""
    hold(case, engine, inputs, reference, compare)


def test_shallow_after_deep(engine: Engine, inputs: Inputs, reference: Reference, compare: Comparison) -> None:
    """The shallow UNet on the features that the engine's own deep UNet left in the buffers they share."""
    from pytest_sdxl.conformance.running import Binding, rounded

    deep = rounded(engine, "unet", inputs.of(Case("unet", step=10)))
    shallow = rounded(engine, "shallow_unet", inputs.of(Case("shallow_unet", step=11)))
    step = {name: tensor for name, tensor in shallow.items() if name not in CACHED_FEATURES}

    first = Binding(engine, "unet", 2)
    second = Binding(engine, "shallow_unet", 2, shared=first)
    first.run(deep)
    got = second.run(step)

    features = reference.outputs("unet", deep)
    continued = step | {name: features[name] for name in CACHED_FEATURES}
    floors = reference.floor("shallow_unet", shallow, compare.precision)
    compare("shallow_unet after unet, 1 image, step 11", got, reference.outputs("shallow_unet", continued), floors)
