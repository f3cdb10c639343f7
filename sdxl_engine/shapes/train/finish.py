"""Stage 4: everything of the bundle that is not a trained network, and the reference scores that the gates rest on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdxl_engine.accuracy.baseline import write_baseline
from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.fid import Moments
from sdxl_engine.accuracy.networks import load_fid_network, load_shapes_metrics
from sdxl_engine.accuracy.ranges import derive, ranges_to_dict
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.assets.captions import write_captions
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.torch_engine import create
from sdxl_engine.files import write_json
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.schedule import read_schedule
from sdxl_engine.shapes import bundle as layout
from sdxl_engine.shapes.grammar import parse
from sdxl_engine.shapes.pixel_check import check_picture
from sdxl_engine.shapes.render import SIDE, render, scene_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sdxl_engine.accuracy.networks import MetricNetworks
    from sdxl_engine.results import Scores
    from sdxl_engine.shapes.train.recipe import Recipe

RENDER_SEED = 0
LATENT_SEED = 0
BATCH = 16
REFERENCE = "fp32 NoOpt reference, engine torch"

Images = NDArray[np.uint8]


def renders(captions: list[str]) -> Iterator[tuple[range, Images]]:
    """The true pictures of captions, jittered from a fixed seed: (rows, (B, 128, 128, 3) uint8)."""
    generator = torch.Generator().manual_seed(RENDER_SEED)
    for start in range(0, len(captions), BATCH):
        rows = range(start, min(start + BATCH, len(captions)))
        pictures = render(scene_tensors([parse(captions[row]) for row in rows]), generator)
        yield rows, pictures.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def write_fixed_files(bundle: Path, captions: list[str]) -> None:
    """Write the captions, the initial latent and the statistics of the validation renders."""
    write_captions(bundle / layout.CAPTIONS, captions, SIDE)
    spec = read_spec(bundle)
    shape = (1, spec.latent_channels, spec.latent_side, spec.latent_side)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(LATENT_SEED))
    np.save(bundle / layout.LATENT, latent.numpy())
    features = load_fid_network(bundle / layout.METRICS)
    moments = Moments(features.dims)
    for _, pictures in renders(captions):
        moments.update(features(pictures))
    np.savez(bundle / layout.METRICS / "statistics.npz", mu=moments.mean, sigma=moments.covariance)


def draw_reference(bundle: Path, captions: list[str], model_opt: str = "NoOpt", device: str = "cpu") -> Images:
    """The pictures of captions by engine `torch` in fp32, of NoOpt the reference: (N, 128, 128, 3) uint8, RGB."""
    spec = read_spec(bundle)
    pipeline = Pipeline(
        create(EngineRequest(checkpoint=bundle, spec=spec, cache=bundle, model_opt=model_opt, device=device)),
        read_schedule(bundle, STEPS),
        deep_steps(model_opt, STEPS),
        tokenise(bundle, captions, spec.tokens),
        read_latent(bundle / layout.LATENT, spec),
        BATCH,
    )
    count = len(captions)
    drawn = [pipeline.generate(np.arange(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]
    return np.concatenate(drawn)


def write_references(bundle: Path, captions: list[str], images: Images, recipe: Recipe) -> None:
    """Score the reference's pictures of the first captions; write the gates' ranges and the baseline from the scores.

    The ranges are derived as MLPerf derived its own; the baseline is what `sdxl_engine.accuracy.baseline` reads.
    """
    most = len(images)
    networks = load_shapes_metrics(bundle / layout.METRICS)
    true = np.concatenate([pictures for _, pictures in renders(captions[:most])])
    entries, facts = [], {}
    for count in recipe.reference_counts:
        wanted = dict(enumerate(captions[:count]))
        rotated = {row: captions[(row + 1) % count] for row in range(count)}
        collected = {
            "reference": collected_scores(networks, images, wanted),
            "renders": collected_scores(networks, true, wanted),
            "shuffled captions": collected_scores(networks, images, rotated),
        }
        scored = {name: collector.scores() for name, collector in collected.items()}
        passed = [check_picture(images[row], captions[row]).passed for row in range(count)]
        origin = f"{REFERENCE}, first {count} validation captions"
        entries.append(range_entry("shapes", scored["reference"], recipe, origin))
        facts[str(count)] = {name: {"clip": s.clip, "fid": s.fid} for name, s in scored.items()}
        facts[str(count)]["pixel check"] = {"passed": sum(passed), "of": count}
        if count == most:
            write_baseline(bundle / layout.BASELINE, origin, networks, collected["reference"].tally.per_id)
    write_json(
        bundle / layout.RANGES,
        {
            layout.OWN_RANGES: entries,
            "measured": facts,
            "percent": {"clip": recipe.clip_percent, "fid": recipe.fid_percent},
            "default_samples": recipe.reference_counts[-1],
            "default_performance_samples": recipe.performance_samples,
        },
    )
    print(json.dumps(facts, indent=2))


def range_entry(name: str, reference: Scores, recipe: Recipe, origin: str) -> dict[str, Any]:
    """Ranges around a reference's scores, as the file of ranges holds them."""
    widths = (recipe.clip_percent, recipe.fid_percent)
    count = reference.count
    return ranges_to_dict(derive(f"{name}-{count}", reference.clip, reference.fid, *widths, count, origin))


def collected_scores(networks: MetricNetworks, images: Images, texts: dict[int, str]) -> Collector:
    """Score the first pictures against the captions of their rows."""
    collector = Collector(Scorer(networks), texts)
    collector.take(list(texts), images[: len(texts)])
    collector.finish()
    return collector
