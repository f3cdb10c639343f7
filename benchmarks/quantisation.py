"""Which layers of the UNet 8 bits cost most, on the embedded model: `python benchmarks/quantisation.py`.

Ranges are those of an 8-bit engine, from its cache where it has them. Then the fp32 reference draws captions, and each
layer, also those that a recipe keeps, computes on what it reads in fp32 and in 8 bits, so that a layer's error is its
own and none that was handed to it. Prints a table in Markdown: layers by the end of their name, and the worst of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import sys
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.torch_engine import TorchEngine
from sdxl_engine.environment import environment
from sdxl_engine.export.calibration_set import calibration_set
from sdxl_engine.export.quantised_layers import QuantisedLayer
from sdxl_engine.export.ranges import measured_ranges
from sdxl_engine.export.recipes import INT8, RECIPES
from sdxl_engine.export.smoothing import smooth
from sdxl_engine.measure import captions
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.schedule import read_schedule
from sdxl_engine.settings import RunSettings
from sdxl_engine.shapes.bundle import BUNDLE, LATENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.export.statistics import LayerStatistics


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=INT8.captions, help="that ranges are measured on")
    parser.add_argument("--samples", type=int, default=2, help="validation captions that errors are measured on")
    parser.add_argument("--precision", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--alpha", type=float, help="measure layers as SmoothQuant with this alpha leaves them")
    parser.add_argument("--cache", type=Path, default=Path("build/engines"), help="where ranges are kept")
    return parser.parse_args()


def layer_errors(
    ranges: Mapping[str, LayerStatistics], recipes: Sequence[Recipe], samples: int, alpha: float | None = None
) -> dict[str, list[float]]:
    """Relative errors (L2) of each layer's own output over all steps of some images, NoOpt; one for each recipe."""
    spec, networks = read_spec(BUNDLE), load_networks(BUNDLE)
    unet = networks["unet"].get_submodule("unet")
    if alpha is not None:
        ranges = smooth(unet, ranges, alpha, INT8.keeps)
    squares = {name: np.zeros(len(recipes) + 1) for name in ranges}

    def compare(
        name: str, quantised: Sequence[nn.Module], _layer: nn.Module, inputs: tuple[Any, ...], output: Any
    ) -> None:
        for index, layer in enumerate(quantised):
            squares[name][index] += float((layer(inputs[0]) - output).double().square().sum())
        squares[name][-1] += float(output.double().square().sum())

    everything = {recipe.precision: dataclasses.replace(recipe, kept=()).layers(ranges) for recipe in recipes}
    for name in ranges:
        layer = unet.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        quantised = [QuantisedLayer(layer, layers[name], precision) for precision, layers in everything.items()]
        layer.register_forward_hook(partial(compare, name, quantised))
    texts = [caption.text for caption in captions(RunSettings(model="shapes", samples=samples))]
    pipeline = Pipeline(
        TorchEngine(EngineRequest(checkpoint=BUNDLE, spec=spec, cache=BUNDLE), networks),
        read_schedule(BUNDLE, STEPS),
        deep_steps("NoOpt", STEPS),
        tokenise(BUNDLE, texts, spec.tokens),
        read_latent(BUNDLE / LATENT, spec),
        samples,
    )
    pipeline.generate(np.arange(samples))
    return {name: [float(error) for error in np.sqrt(sums[:-1] / sums[-1])] for name, sums in squares.items()}


def kind(layer: str) -> str:
    """What layers of one place in their blocks have in common: the end of the name, without numbers of blocks."""
    return re.sub(
        r"^(down_blocks\.|up_blocks\.|mid_block\.|attentions\.|resnets\.|transformer_blocks\.|\d+\.)+", "", layer
    )


def table(errors: Mapping[str, Sequence[float]], recipes: Sequence[Recipe]) -> str:
    """Groups from the largest median error of the first recipe to the smallest."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in errors:
        groups[kind(name), *(recipe.keeps(name) for recipe in recipes)].append(name)
    head = "".join(f" {recipe.precision} | median error | largest error | of |" for recipe in recipes)
    rows = [f"| layers | number |{head}\n|---|---|{'---|---|---|---|' * len(recipes)}\n"]
    for (group, *kept), names in sorted(groups.items(), key=lambda item: -middle(errors, item[1], 0)):
        cells = []
        for index, keeps in enumerate(kept):
            worst = max(names, key=lambda name: errors[name][index])
            figures = f"{middle(errors, names, index):.2%} | {errors[worst][index]:.2%}"
            cells.append(f" {'kept' if keeps else 'yes'} | {figures} | `{worst}` |")
        rows.append(f"| `{group}` | {len(names)} |{''.join(cells)}\n")
    return "".join(rows)


def middle(errors: Mapping[str, Sequence[float]], names: Sequence[str], index: int) -> float:
    """The median of some layers' errors with one recipe."""
    return statistics.median(errors[name][index] for name in names)


def main() -> int:
    """Measure and print."""
    options = arguments()
    recipes = [RECIPES[precision] for precision in options.precision]
    on = calibration_set(RunSettings(model="shapes"), dataclasses.replace(INT8, captions=options.captions))
    ranges = measured_ranges(BUNDLE, read_spec(BUNDLE), options.cache, on)
    about = environment()
    where = f"{about['processor']}, torch {about['torch']}, {datetime.now(UTC):%Y-%m-%d}"
    print(f"{len(ranges)} layers, ranges of {options.captions} captions, errors over {options.samples}; {where}\n")
    print(table(layer_errors(ranges, recipes, options.samples, options.alpha), recipes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
