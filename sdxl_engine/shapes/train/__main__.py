"""Train `shapes` from nothing: `python -m sdxl_engine.shapes.train --seed 0 --output BUNDLE`.

Stages run in order; each resumes from its checkpoint below `--work` and is skipped once complete.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdxl_engine.shapes.bundle import write_manifest
from sdxl_engine.shapes.grammar import split
from sdxl_engine.shapes.train.autoencoder import train_vae
from sdxl_engine.shapes.train.data import Pool, make_pool
from sdxl_engine.shapes.train.denoiser import train_denoiser
from sdxl_engine.shapes.train.finish import draw_reference, write_fixed_files, write_references
from sdxl_engine.shapes.train.metrics import train_clip, train_features
from sdxl_engine.shapes.train.pruned import make_pruned
from sdxl_engine.shapes.train.recipe import Recipe, tiny
from sdxl_engine.shapes.train.tokenizers import write_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = ("vae", "clip", "features", "denoiser", "finish", "pruned")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sdxl_engine.shapes.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and noise")
    parser.add_argument("--output", type=Path, default=Path("build/shapes/bundle"), help="the bundle to make")
    parser.add_argument("--work", type=Path, default=Path("build/shapes/work"), help="checkpoints and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="checkpoint and stop after this long; run again to go on")
    parser.add_argument("--only", nargs="+", choices=STAGES, help="just these stages")
    parser.add_argument("--tiny", action="store_true", help="the recipe in miniature, to try the code")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the stages; 0 when all are complete, 3 when stopped by `--minutes`."""
    arguments = _arguments(argv)
    began = time.monotonic()
    stop_at = began + 60 * arguments.minutes if arguments.minutes else None
    recipe: Recipe = tiny() if arguments.tiny else Recipe()
    device = torch.device(arguments.device)
    bundle, work = arguments.output, arguments.work
    bundle.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    captions, scenes = split(recipe.captions)
    write_tokenizers(captions, bundle)

    @functools.cache
    def pool() -> Pool:
        return make_pool(recipe, scenes, bundle, arguments.seed, device)

    def finish() -> bool:
        write_fixed_files(bundle, captions)
        images = draw_reference(bundle, captions[: max(recipe.reference_counts)])
        write_references(bundle, captions, images, recipe)
        write_manifest(bundle)
        return True

    stages: dict[str, Callable[[], bool]] = {
        "vae": lambda: train_vae(recipe.vae, pool(), bundle, work, stop_at),
        "clip": lambda: train_clip(recipe.clip, pool(), bundle, work, stop_at),
        "features": lambda: train_features(recipe.features, pool(), bundle, work, stop_at),
        "denoiser": lambda: train_denoiser(recipe, pool(), bundle, work, stop_at),
        "finish": finish,
        "pruned": lambda: make_pruned(recipe, bundle, work, arguments.seed, arguments.device, stop_at),
    }
    for name in arguments.only or STAGES:
        torch.manual_seed(arguments.seed)
        start = time.monotonic()
        complete = stages[name]()
        print(
            json.dumps({"stage": name, "complete": complete, "seconds": round(time.monotonic() - start, 1)}), flush=True
        )
        if not complete:
            return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
