"""Speed of the scorer against that of MLPerf's own loop, in one process: `make scorer-speed`.

Both score the same 1024x1024 images with the full-size networks and the same seeded random weights. They take turns, in
rounds of about the same length, and the ratio is the median of those of the rounds, so that a slow spell of the machine
hits both alike. Ends with status 1 if the scorer is less than twice as fast, gives other scores, or takes more than
1 GB beside its networks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from full_size import make_captions, make_images, memory
from reference_loop import ReferenceLoop

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Statistics, frechet_distance, network_input
from sdxl_engine.accuracy.networks import MetricNetworks
from sdxl_engine.accuracy.official import INCEPTION_DIMS, clip_model, clip_network, inception_model, inception_network
from sdxl_engine.accuracy.precision import full_float32
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

BLOCK = 32
AT_LEAST = 2.0
AT_MOST_GB = 1.0
CLIP_TOLERANCE, FEATURE_TOLERANCE = 1e-4, 1e-5


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="that the scorer takes in a round (32), or with --live in all (512)")
    parser.add_argument("--reference-images", type=int, default=16, help="that the reference's loop takes in a round")
    parser.add_argument("--rounds", type=int, default=8, help="in turns; the median counts")
    parser.add_argument("--device", default="cpu", help="of the scorer; the reference's loop runs on the CPU")
    parser.add_argument("--live", action="store_true", help="the live path of a run in place of all else: live_path.py")
    parser.add_argument("--pace", type=float, default=60.0, help="images a second of the slow part of --live (60)")
    parser.add_argument("--paced", type=int, default=480, help="images at that pace, about (480)")
    parser.add_argument("--engine", help="with --live: one that draws meanwhile; cuda draws at full size")
    parser.add_argument("--precision", default="fp8", help="of the engine (fp8)")
    parser.add_argument("--engine-device", help="of the engine (that of the scorer)")
    parser.add_argument("--batches", type=int, default=4, help="of 8 images, that the engine draws in a round (4)")
    parser.add_argument("--sqrtm", action="store_true", help="time the reference's matrix root too, minutes on 2 cores")
    return parser.parse_args()


def random_networks(device: str) -> tuple[MetricNetworks, ReferenceLoop]:
    """The networks of the variant `mlperf` with seeded random weights; the reference has copies of its own."""
    torch.manual_seed(0)
    clip, inception = clip_model(), inception_model()
    for module in inception.modules():
        if isinstance(module, torch.nn.Conv2d):
            # Of this size, activations keep theirs from layer to layer; smaller ones would end as denormal numbers.
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    reference = ReferenceLoop(clip, inception)
    statistics = Statistics(np.zeros(INCEPTION_DIMS), np.eye(INCEPTION_DIMS))
    return MetricNetworks(
        "random", clip_network(clip, device), inception_network(inception, device), statistics
    ), reference


def score(scorer: Scorer, images: NDArray[np.uint8], captions: Sequence[str]) -> tuple[Any, Any]:
    """CLIP scores and features, in blocks as a run's."""
    blocks = [slice(start, start + BLOCK) for start in range(0, len(images), BLOCK)]
    parts = [scorer.score(images[block], captions[block]) for block in blocks]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def peak_memory(scorer: Scorer) -> float:
    """GB of host memory that a block of 32 takes at most, its images not counted."""
    images, captions = make_images(BLOCK), make_captions(BLOCK)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = memory("VmRSS")
    scorer.score(images, captions)
    return memory("VmHWM") - before


def timed(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """(rounds, 2) of each: seconds, and seconds of processor time, taken in turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            began, used = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - began, time.process_time() - used))
    return {name: np.array(pairs) for name, pairs in times.items()}


def parts(
    networks: MetricNetworks, reference: ReferenceLoop, images: NDArray[np.uint8], captions: Sequence[str]
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Each step of the scorer for a block, and the reference's for one image; on what the step before gives."""
    clip, features, device = networks.clip, networks.features, networks.clip.device
    pixels, small = ClipScore(clip).pixels(images), network_input(images, features.image_size, device)
    one, unit = reference.pixels(images[0]), reference.unit(images[0])
    return {
        "PIL resize to 224": (lambda: ClipScore(clip).pixels(images), lambda: reference.pixels(images[0])),
        "image tower": (
            lambda: clip.model.encode_image(pixels.to(device)).cpu(),
            lambda: reference.image_embedding(one),
        ),
        "text tower": (
            lambda: clip.model.encode_text(clip.tokenise(captions).to(device)).cpu(),
            lambda: reference.text_embedding(captions[0]),
        ),
        "bilinear resize to 299": (
            lambda: network_input(images, features.image_size, device).cpu(),
            lambda: F.interpolate(reference.unit(images[0]), size=(299, 299), mode="bilinear"),
        ),
        "Inception": (
            lambda: [features.module(group).cpu() for group in small.split(features.group)],
            lambda: reference.inception(unit),
        ),
    }


def time_distance(*, sqrtm: bool) -> dict[str, NDArray[np.float64]]:
    """Seconds of FID's distance between two covariances of full rank."""
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(2, 3 * INCEPTION_DIMS // 2, INCEPTION_DIMS)) * np.linspace(0.02, 1, INCEPTION_DIMS)
    mu = draws.mean(axis=1)
    one, two = (np.cov(vectors, rowvar=False) for vectors in draws)
    work = {"FID distance": lambda: frechet_distance(mu[0], one, mu[1], two)}
    if sqrtm:
        work["the reference's, by scipy.linalg.sqrtm"] = lambda: scipy.linalg.sqrtm(one @ two)
    return timed(work, 1)


def main() -> int:
    """Time, print, judge."""
    options = arguments()
    if options.live:
        from live_path import measure

        return measure(options)
    networks, reference = random_networks(options.device)
    scorer = Scorer(networks)
    about = environment()
    print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.2f}, torch {about['torch']}")
    peak = peak_memory(scorer)
    print(f"scorer on {options.device}: {peak:.2f} GB of host memory for a block of {BLOCK} (at most {AT_MOST_GB})")
    images, captions = make_images(options.images or BLOCK), make_captions(options.images or BLOCK)
    few = slice(options.reference_images)
    ours, theirs = score(scorer, images, captions), reference.score(images[few], captions[few])
    work = {
        "scorer": lambda: score(scorer, images, captions),
        "reference": lambda: reference.score(images[few], captions[few]),
    }
    counts = {"scorer": len(images), "reference": len(images[few])}
    each = {name: times / counts[name] for name, times in timed(work, options.rounds).items()}
    for name, times in each.items():
        seconds, processor = np.median(times, axis=0)
        print(f"{name:24} {1 / seconds:8.2f} images/s, {1e3 * processor:8.2f} ms of processor time an image")
    with torch.inference_mode(), full_float32(options.device):
        block = images[:BLOCK]
        for name, (step, reference_step) in parts(networks, reference, block, captions[:BLOCK]).items():
            times = timed({"ours": step, "reference": reference_step}, options.rounds)
            ours_ms, theirs_ms = (1e3 * np.median(times[key][:, 0]) for key in ("ours", "reference"))
            print(f"  {name:22} {ours_ms / len(block):8.2f} ms an image, the reference's {theirs_ms:8.2f}")
    for name, times in time_distance(sqrtm=options.sqrtm).items():
        print(f"{name:40} {times[0, 0]:8.2f} s")
    clip = np.abs(ours[0][few] - theirs[0]).max()
    features = np.abs(ours[1][few] - theirs[1]).max() / np.abs(theirs[1]).max()
    same = clip <= CLIP_TOLERANCE and features <= FEATURE_TOLERANCE
    print(f"largest difference: CLIP score {clip:.1e}, features {features:.1e}: {'ok' if same else 'ANOTHER SCORE'}")
    ratios = each["reference"][:, 0] / each["scorer"][:, 0]
    ratio = np.median(ratios)
    spread = f"rounds {ratios.min():.2f} to {ratios.max():.2f}"
    verdict = "ok" if ratio >= AT_LEAST else "TOO SLOW"
    print(f"scorer over reference {ratio:.2f} (at least {AT_LEAST}, {spread}): {verdict}")
    return int(not same or ratio < AT_LEAST or peak > AT_MOST_GB)


if __name__ == "__main__":
    sys.exit(main())
