"""The whole pipeline on the engine: from captions to images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from sdxl_engine.run_system import BATCH_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.reference import Reference
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.models.source import ModelSource

pytestmark = pytest.mark.conformance

FEW_STEPS = 2
"""One deep and one shallow step: enough for a prompt to show in its image."""

ORDERS = {
    "a shuffled batch": (5, 0, 7, 2, 6, 1, 4, 3),
    "a ragged batch": (6, 1, 4),
}
"""Captions to draw, beside a full batch of them in order."""


def _alike(
    what: str,
    got: NDArray[np.uint8],
    expected: NDArray[np.uint8],
    reference: Reference,
    compare: Comparison,
    told: str,
) -> None:
    from pytest_sdxl.conformance.drawing import levels_apart
    from pytest_sdxl.conformance.figures import EIGHT_BITS, FACTORS, image_limit

    __tracebackhide__ = True
    floor = reference.image_floor(compare.precision)
    apart, bound = levels_apart(got, expected), image_limit(floor, compare.precision)
    worst = int(apart.argmax())
    compare.note(what, "root mean square of levels", float(apart[worst]), bound)
    if apart[worst] > bound:
        why = (
            f"{FACTORS[compare.precision]:g} x the rounding of {compare.precision} measured on this pipeline"
            if bound > EIGHT_BITS
            else "the rounding to 8 bits"
        )
        pytest.fail(
            f"{what}, image {worst} of {len(got)}: {apart[worst]:.3g} levels (PSNR {_psnr(apart[worst]):.1f} dB) from "
            f"{told}, at most {bound:.3g} levels ({_psnr(bound):.1f} dB; {why})",
            pytrace=False,
        )


def _psnr(levels: float) -> float:
    return 20 * math.log10(255 / levels)


@pytest.mark.parametrize("model_opt", ["NoOpt", "DeepCache"])
def test_images(engine: Engine, model: ModelSource, reference: Reference, compare: Comparison, model_opt: str) -> None:
    """The image of a caption against the reference's, with DeepCache after 20 steps, with NoOpt after 5."""
    from pytest_sdxl.conformance.cases import STEPS
    from pytest_sdxl.conformance.drawing import draw
    from pytest_sdxl.conformance.reference import DRAWN

    images = draw(engine, model, model_opt, DRAWN, STEPS[model_opt])
    _alike(f"pipeline {model_opt}", images, reference.images(model_opt), reference, compare, "the reference's")


@pytest.fixture(scope="module")
def in_order(engine: Engine, model: ModelSource) -> NDArray[np.uint8]:
    """A full batch of captions, in their order."""
    from pytest_sdxl.conformance.drawing import draw

    return draw(engine, model, "DeepCache", range(BATCH_SIZE), FEW_STEPS)


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_results(
    engine: Engine,
    model: ModelSource,
    reference: Reference,
    compare: Comparison,
    in_order: NDArray[np.uint8],
    order: str,
) -> None:
    """Images come in the order of the queries: those of a shuffled and of a ragged batch are those of a full one."""
    from pytest_sdxl.conformance.drawing import draw

    wanted = list(ORDERS[order])
    images = draw(engine, model, "DeepCache", wanted, FEW_STEPS)
    told = f"the same captions' in a batch of {BATCH_SIZE} in order"
    _alike(f"pipeline, {order}", images, in_order[wanted], reference, compare, told)
