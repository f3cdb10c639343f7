"""What a recipe's choices are worth on the embedded model: `python benchmarks/quantisation_recipes.py`.

Engine `torch` draws the same captions in fp32 and with each recipe's rounding layers, which round as the exported ones
do. Prints a table in Markdown: the error of the final latents against fp32, and the scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.placement import open_scorer
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.torch_engine import TorchEngine
from sdxl_engine.environment import environment
from sdxl_engine.export.calibration_set import calibration_set
from sdxl_engine.export.quantised import quantise
from sdxl_engine.export.ranges import measured_ranges
from sdxl_engine.export.recipes import FP8, INT8
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.source import model_of
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.run_captions import own_share
from sdxl_engine.schedule import read_schedule
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sdxl_engine.export.recipes import Recipe

BATCH = 8
RECIPES: dict[str, Recipe | None] = {
    "fp32": None,
    "int8": dataclasses.replace(INT8, alpha=None, collect="max"),
    "int8, SmoothQuant 0.8": dataclasses.replace(INT8, alpha=0.8, collect="max"),
    "int8, SmoothQuant 0.5": dataclasses.replace(INT8, alpha=0.5, collect="max"),
    "int8, min-mean": dataclasses.replace(INT8, alpha=None, collect="min-mean"),
    "int8, min-mean, percentile 0.5": dataclasses.replace(INT8, alpha=None, collect="min-mean", percentile=0.5),
    "int8, min-mean, SmoothQuant 0.8": dataclasses.replace(INT8, alpha=0.8, collect="min-mean"),
    "fp8": FP8,
    "fp8, SmoothQuant 0.8": dataclasses.replace(FP8, alpha=0.8),
}


class Recording(Pipeline):
    """Keeps the final latents of every batch."""

    def decode(
        self, buffers: dict[str, torch.Tensor], run: dict[str, Callable[[], None]], latents: torch.Tensor
    ) -> torch.Tensor:
        """See `Pipeline.decode`."""
        self.final.append(latents.clone())
        return super().decode(buffers, run, latents)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=128, help="validation captions; FID takes more than 64")
    parser.add_argument("--model-opt", default="DeepCache", help="which variant")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=Path("build/engines"), help="where ranges are kept")
    return parser.parse_args()


def draw(settings: RunSettings, recipe: Recipe | None, cache: Path) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Images (N, H, W, 3) and final latents (N, 4, S, S) of all captions."""
    model = model_of(settings)
    spec, networks = read_spec(model.checkpoint), load_networks(model.checkpoint, model_opt=settings.model_opt)
    if recipe is not None:
        drawn = calibration_set(settings, recipe)
        # Without the pruned variant both UNets are the same modules: what is done to one is done to the other.
        own = {"unet": settings.model_opt, "shallow_unet": "NoOpt"}
        if networks["unet"].unet is networks["shallow_unet"].unet:
            del own["shallow_unet"]
        for name, variant in own.items():
            statistics = measured_ranges(model.checkpoint, spec, cache, drawn, variant)
            unet = networks[name].get_submodule("unet")
            present = {name for name, _ in unet.named_modules()}
            quantise(unet, {name: seen for name, seen in statistics.items() if name in present}, recipe)
    captions = own_share(settings, model)
    pipeline = Recording(
        TorchEngine(EngineRequest(checkpoint=model.checkpoint, spec=spec, cache=cache), networks),
        read_schedule(model.checkpoint, STEPS),
        deep_steps(settings.model_opt, STEPS),
        tokenise(model.checkpoint, [caption.text for caption in captions], spec.tokens),
        read_latent(model.latent, spec),
        BATCH,
    )
    pipeline.final = []
    rows = np.arange(len(captions))
    images = [pipeline.generate(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    return np.concatenate(images), torch.cat(pipeline.final)


def main() -> int:
    """Measure and print."""
    options = arguments()
    settings = RunSettings(model="shapes", model_opt=options.model_opt, samples=options.samples)
    model, about = model_of(settings), environment()
    captions = {caption.id: caption.text for caption in own_share(settings, model)}
    where = f"{about['processor']}, torch {about['torch']}, {datetime.now(UTC):%Y-%m-%d}"
    print(f"{options.model_opt}, {options.samples} captions; {where}\n")
    print("| recipe | error of the latents | CLIP | FID |\n|---|---|---|---|", flush=True)
    _, exact = draw(settings, None, options.cache)
    with open_scorer(model, settings.metrics, settings.metrics_device) as scorer:
        for name in options.recipes:
            images, latents = draw(settings, RECIPES[name], options.cache)
            collector = Collector(scorer, captions)
            collector.take(list(captions), images)
            collector.finish()
            scores, error = collector.scores(), float((latents - exact).norm() / exact.norm())
            print(f"| {name} | {error:.2%} | {scores.clip:.3f} | {scores.fid:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
