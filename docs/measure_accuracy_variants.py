"""Print the tables of docs/accuracy.md. Run: python docs/measure_accuracy_variants.py."""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Moments, frechet_distance
from sdxl_engine.accuracy.networks import MetricNetworks, load_shapes_metrics
from sdxl_engine.accuracy.official import load_official_metrics
from sdxl_engine.accuracy.torchmetrics_variant import as_torchmetrics
from sdxl_engine.shapes import bundle
from sdxl_engine.shapes.train.finish import renders

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import lookalikes
from pictures import CAPTIONS, picture
from random_official import write_official

if TYPE_CHECKING:
    from collections.abc import Iterator

    Images = np.ndarray

FULL_SIZE, PHOTOGRAPHS = range(256), [index for index in range(128) if 4 <= index % 16 < 11]
RENDERS, NOISE, JPEG_QUALITY = 512, 8, 60
THIS = "this scorer"


def variants(networks: MetricNetworks) -> dict[str, MetricNetworks]:
    """This scorer, torchmetrics' way, and every look-alike."""
    names = (*lookalikes.OF_CLIP, *lookalikes.OF_FID)
    others = {name: lookalikes.apply(networks, name) for name in names}
    return {THIS: networks, "variant `torchmetrics`": as_torchmetrics(networks), **others}


def clip_scores(scorers: dict[str, MetricNetworks], images: Iterator[Images], captions: list[str]) -> dict[str, Images]:
    """Of each scorer whose CLIP score is not this scorer's, and of this one: (N,) float64."""
    this = scorers[THIS].clip
    own = {name: ClipScore(nets.clip) for name, nets in scorers.items() if name == THIS or nets.clip is not this}
    scores, start = {name: [] for name in own}, 0
    with ThreadPoolExecutor(2) as pool:
        for batch in images:
            texts = captions[start : start + len(batch)]
            start += len(batch)
            found = pool.map(ClipScore.__call__, own.values(), [batch] * len(own), [texts] * len(own))
            for name, of_batch in zip(own, found, strict=True):
                scores[name].extend(of_batch)
    return {name: np.array(values) for name, values in scores.items()}


def moments(scorers: dict[str, MetricNetworks], images: Iterator[Images]) -> dict[str, Moments]:
    """Of the features of each scorer whose features are not this scorer's, and of this one's."""
    this = scorers[THIS].features
    own = {name: nets.features for name, nets in scorers.items() if name == THIS or nets.features is not this}
    kept = {name: Moments(this.dims) for name in own}
    with ThreadPoolExecutor(2) as pool:
        for batch in images:
            found = pool.map(lambda network, batch: network(batch), own.values(), [batch] * len(own))
            for name, features in zip(own, found, strict=True):
                kept[name].update(features)
    return kept


def distance(one: Moments, other: Moments) -> float:
    """FID of two sets."""
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)


def table(title: str, clip: dict[str, Images], scored: dict[str, Moments], true: dict[str, Moments]) -> None:
    """Print this scorer's values and how far off the others are."""
    of_this, fid = clip[THIS], distance(scored[THIS], true[THIS])
    print(f"\n{title}: CLIP {of_this.mean():.4f} (from {of_this.min():.2f} to {of_this.max():.2f}), FID {fid:.4f}\n")
    print("| scorer | CLIP mean | CLIP of an image, at most | FID | FID, true statistics made likewise |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys([*clip, *scored]):
        if name == THIS:
            continue
        cells = ["same"] * 4
        if name in clip:
            off = clip[name] - of_this
            cells[:2] = f"{off.mean():+.1e}", f"{np.abs(off).max():.1e}"
        if name in scored:
            cells[2:] = (f"{100 * (distance(scored[name], true[like]) / fid - 1):+.2f} %" for like in (THIS, name))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def full_size(folder: Path) -> None:
    """Random weights, the images of the agreement test."""
    official = write_official(folder)
    scorers = variants(load_official_metrics(folder, official.files))

    def drawn(seed: int, indices: list[int] | range) -> Iterator[Images]:
        for start in range(0, len(indices), 8):
            yield np.stack([picture(seed, index) for index in indices[start : start + 8]])

    captions = [CAPTIONS[index % len(CAPTIONS)] for index in FULL_SIZE]
    table(
        f"Random weights, {len(FULL_SIZE)} images",
        clip_scores(scorers, drawn(1, FULL_SIZE), captions),
        moments(scorers, drawn(1, FULL_SIZE)),
        moments(scorers, drawn(2, PHOTOGRAPHS)),
    )


def worse(images: Images, generator: np.random.Generator) -> Images:
    """Gaussian noise of `NOISE` levels, then JPEG."""
    noisy = (images + generator.normal(0, NOISE, images.shape)).clip(0, 255).round().astype(np.uint8)
    found = []
    for image in noisy:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


def shapes() -> None:
    """The embedded model's networks, worsened renders of the first validation captions."""
    scorers = variants(load_shapes_metrics(bundle.BUNDLE / bundle.METRICS))
    with (bundle.BUNDLE / bundle.CAPTIONS).open(newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file, delimiter="\t")]

    def drawn() -> Iterator[Images]:
        generator = np.random.default_rng(0)
        return (worse(images, generator) for _, images in renders(captions[:RENDERS]))

    table(
        f"`shapes`, {RENDERS} worsened renders",
        clip_scores(scorers, drawn(), captions[:RENDERS]),
        moments(scorers, drawn()),
        moments(scorers, (images for _, images in renders(captions))),
    )


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    shapes()
    with tempfile.TemporaryDirectory() as folder:
        full_size(Path(folder))


if __name__ == "__main__":
    main()
