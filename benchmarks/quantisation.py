"""Which layers of the UNet int8 costs most, on the embedded model: `python benchmarks/quantisation.py`.

Ranges are measured as for an int8 engine, of all layers, also of those that the recipe keeps. Then the fp32 reference
draws captions, and each layer computes on what it reads twice, in fp32 and in int8, so that a layer's error is its own
and none that was handed to it. Prints a table in Markdown: layers by the end of their name, and the worst of each.
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
import torch
from torch import nn

from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.torch_engine import TorchEngine
from sdxl_engine.environment import environment
from sdxl_engine.export.calibration import calibrated
from sdxl_engine.export.quantised_layers import Amax, QuantisedLayer
from sdxl_engine.export.recipes import INT8
from sdxl_engine.measure import captions
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.schedule import read_schedule
from sdxl_engine.settings import RunSettings
from sdxl_engine.shapes.bundle import BUNDLE, LATENT

if TYPE_CHECKING:
    from collections.abc import Mapping


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=INT8.captions, help="that ranges are measured on")
    parser.add_argument("--samples", type=int, default=2, help="validation captions that errors are measured on")
    parser.add_argument(
        "--ranges", type=Path, metavar="FILE", help="keep the ranges there, or take those that are there"
    )
    return parser.parse_args()


def layer_errors(layers: Mapping[str, Amax], samples: int) -> dict[str, float]:
    """Relative error (L2) of each layer's own output over all steps of some images, NoOpt."""
    spec, networks = read_spec(BUNDLE), load_networks(BUNDLE)
    unet = networks["unet"].get_submodule("unet")
    squares: dict[str, list[float]] = {name: [0.0, 0.0] for name in layers}

    def compare(name: str, quantised: nn.Module, _layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        squares[name][0] += float((quantised(inputs[0]) - output).double().square().sum())
        squares[name][1] += float(output.double().square().sum())

    for name, amax in layers.items():
        layer = unet.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        layer.register_forward_hook(partial(compare, name, QuantisedLayer(layer, amax)))
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
    return {name: (error / whole) ** 0.5 for name, (error, whole) in squares.items()}


def kind(layer: str) -> str:
    """What layers of one place in their blocks have in common: the end of the name, without numbers of blocks."""
    return re.sub(
        r"^(down_blocks\.|up_blocks\.|mid_block\.|attentions\.|resnets\.|transformer_blocks\.|\d+\.)+", "", layer
    )


def table(errors: Mapping[str, float]) -> str:
    """Groups from the largest median error to the smallest."""
    groups: dict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    for name, error in errors.items():
        groups[kind(name), INT8.keeps(name)][name] = error
    rows = ["| layers | number | int8 | median error | largest error | of |\n|---|---|---|---|---|---|\n"]
    for (group, kept), members in sorted(groups.items(), key=lambda item: -statistics.median(item[1].values())):
        worst = max(members, key=lambda name: members[name])
        figures = f"{statistics.median(members.values()):.2%} | {members[worst]:.2%}"
        rows.append(f"| `{group}` | {len(members)} | {'kept' if kept else 'yes'} | {figures} | `{worst}` |\n")
    return "".join(rows)


def main() -> int:
    """Measure and print."""
    options = arguments()
    if options.ranges and options.ranges.exists():
        layers = {name: Amax(*amax) for name, amax in torch.load(options.ranges).items()}
    else:
        recipe = dataclasses.replace(INT8, kept=(), captions=options.captions)
        layers = calibrated(BUNDLE, read_spec(BUNDLE), recipe)
        if options.ranges:
            torch.save({name: (amax.input, amax.weight) for name, amax in layers.items()}, options.ranges)
    about = environment()
    where = f"{about['processor']}, torch {about['torch']}, {datetime.now(UTC):%Y-%m-%d}"
    print(f"{len(layers)} layers, ranges of {options.captions} captions, errors over {options.samples}; {where}\n")
    print(table(layer_errors(layers, options.samples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
