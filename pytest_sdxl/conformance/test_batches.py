"""A row of a batch does not depend on the size of the batch, on its place in it, or on what else is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.conformance.cases import usual
from sdxl_engine.models.spec import NETWORKS

if TYPE_CHECKING:
    from torch import Tensor

    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from pytest_sdxl.conformance.reference import Reference
    from sdxl_engine.engines.base import Engine

pytestmark = pytest.mark.conformance

OUTLIER = 32.0
"""Times this, the samples of strange neighbours: a scale that is chosen for the whole batch gets coarser by it."""


@pytest.mark.parametrize("network", NETWORKS)
def test_every_batch_size(
    engine: Engine, network: str, inputs: Inputs, reference: Reference, compare: Comparison, most_images: int
) -> None:
    """Batches of one image up to the largest give, row for row, what the largest gives."""
    from pytest_sdxl.conformance.running import rounded, run

    everything = tuple(range(most_images))
    floors = reference.floor(network, rounded(engine, network, inputs.of(usual(network))), compare.precision)
    full = run(engine, network, inputs.of(usual(network, everything)))
    rows_each = engine.networks[network].rows(1)
    for size in everything[1:]:
        case = usual(network, everything[:size])
        # Negative rows of all images come before their positive rows.
        rows = [block * most_images + image for block in range(rows_each) for image in case.images]
        expected = {name: tensor[rows] for name, tensor in full.items()}
        compare(case, run(engine, network, inputs.of(case)), expected, floors, f"the batch of {most_images} images")


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_invariance(
    engine: Engine, network: str, inputs: Inputs, reference: Reference, compare: Comparison, most_images: int
) -> None:
    """The same image as the first of one batch and as the last of another, whose other images differ, one wildly."""
    from pytest_sdxl.conformance.running import rounded, run

    ours, others = tuple(range(most_images)), tuple(range(most_images, 2 * most_images - 1))
    floors = reference.floor(network, rounded(engine, network, inputs.of(usual(network))), compare.precision)
    rows_each = engine.networks[network].rows(1)

    def only(image: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = [block * most_images + image for block in range(rows_each)]
        return {name: tensor[rows] for name, tensor in batch.items()}

    strange = inputs.of(usual(network, (*others, 0)))
    for name in ("sample", "latent"):
        if name in strange:
            strange[name][0] *= OUTLIER
    first = only(0, run(engine, network, inputs.of(usual(network, ours))))
    last = only(most_images - 1, run(engine, network, strange))
    compare(f"{network}, image 0 as the last of {most_images}", last, first, floors, "it as the first of another batch")
