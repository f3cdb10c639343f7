"""Stage 5: the pruned UNet of DeepCachePruned, and the scores that its ranges rest on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.networks import load_shapes_metrics
from sdxl_engine.assets.captions import read_captions
from sdxl_engine.files import read_json, write_json
from sdxl_engine.models.pruned import MODEL_OPT, PRUNED, REPORT
from sdxl_engine.pruning.prompts import grammar_prompts
from sdxl_engine.pruning.prune import PruneRequest, prune
from sdxl_engine.pruning.recover import RecoverRequest, recover
from sdxl_engine.shapes import bundle as layout
from sdxl_engine.shapes.pixel_check import check_picture
from sdxl_engine.shapes.train.finish import collected_scores, draw_reference, range_entry

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.shapes.train.recipe import Recipe


def make_pruned(recipe: Recipe, bundle: Path, work: Path, seed: int, device: str, stop_at: float | None) -> bool:
    """Prune, distil, score; write `unet_pruned/`, its ranges and the manifest. Returns whether complete.

    What is done is not done again: choosing the layers, and the training up to its last checkpoint.

    Args:
        recipe: Its numbers.
        bundle: A whole bundle, which is added to.
        work: Folder of the untrained pruned UNet, the checkpoint and the log.
        seed: Of prompts, initial latents and batches.
        device: Where all of it runs.
        stop_at: `time.monotonic()` after which to checkpoint and stop.
    """
    own, start = recipe.pruning, work / "pruned"
    if not (start / REPORT).is_file():
        request = PruneRequest(
            checkpoint=bundle,
            prompts=tuple(grammar_prompts(own.prompts, seed)),
            share=own.share,
            timesteps=own.timesteps,
            seed=seed,
            device=device,
        )
        prune(request, start, lambda line: print(line, flush=True))
    training = RecoverRequest(
        checkpoint=bundle,
        pruned=start,
        prompts=tuple(grammar_prompts(own.trained_prompts, seed + 1)),
        work=work,
        steps=own.steps,
        batch=own.batch,
        rate=own.rate,
        seed=seed,
        device=device,
        resume=True,
        minutes=None if stop_at is None else max(0.0, stop_at - time.monotonic()) / 60,
    )
    report = recover(training, bundle / PRUNED)
    if report is None:
        return False
    print(json.dumps({name: report[name] for name in ("share", "parameters", "dropped", "loss", "distillation")}))
    write_pruned_ranges(recipe, bundle, device)
    layout.write_manifest(bundle)
    return True


def write_pruned_ranges(recipe: Recipe, bundle: Path, device: str) -> None:
    """Add the ranges of DeepCachePruned, derived as the others: from its own pictures in fp32, by engine `torch`."""
    captions = [row.text for row in read_captions(bundle / layout.CAPTIONS)[: max(recipe.reference_counts)]]
    images = draw_reference(bundle, captions, MODEL_OPT, device)
    networks = load_shapes_metrics(bundle / layout.METRICS)
    ranges = read_json(bundle / layout.RANGES, "the ranges of shapes")
    entries, facts = [], {}
    for count in recipe.reference_counts:
        scores = collected_scores(networks, images, dict(enumerate(captions[:count]))).scores()
        origin = f"fp32 {MODEL_OPT}, engine torch, first {count} validation captions"
        entries.append(range_entry(f"shapes-{MODEL_OPT}", scores, recipe, origin))
        passed = sum(check_picture(images[row], captions[row]).passed for row in range(count))
        facts[str(count)] = {"clip": scores.clip, "fid": scores.fid, "pixel check": {"passed": passed, "of": count}}
        ranges["measured"][str(count)][MODEL_OPT] = facts[str(count)]
    write_json(bundle / layout.RANGES, ranges | {layout.PRUNED_RANGES: entries})
    print(json.dumps(facts, indent=2))
