"""The whole live path of an accuracy run, from images in memory to scores: `python scorer.py --live --device cuda`.

`LiveScoring` is fed as fast as it takes images, in batches of 8 as an engine draws them, and scores them in a process
of its own, with the networks of the variant `mlperf` and seeded random weights in files like the published ones.
Hashes, record and pictures of the worst images are those of a run. The images of a run come slower, so that most of
this is done while they are drawn: what scoring adds to a run, its last two blocks and the scores, is computed from it.
Ends with status 1 if the seconds or the memory are more than the target, which holds for a GPU with 16 cores.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from full_size import make_captions, make_images, memory

from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.kept_images import IMAGES, WORST, KeptImages
from sdxl_engine.accuracy.official import INCEPTION_DIMS, load_official_metrics
from sdxl_engine.accuracy.official_files import FILES
from sdxl_engine.accuracy.process_scorer import ProcessScorer
from sdxl_engine.accuracy.records import RECORD, Block, RecordWriter
from sdxl_engine.accuracy.tally import Tally
from sdxl_engine.environment import environment
from sdxl_engine.live_scoring import LiveScoring
from sdxl_engine.shards import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import Metric
    from sdxl_engine.assets.manifest import Asset

BATCH, DISTINCT, MARK = 8, 64, 64
RUN = 5000
AT_MOST_S, AT_MOST_GB, CORES = 29.0, 2.0, 16
ROOT = Path(__file__).parents[1]
WRITE = "import pathlib, sys, random_official; random_official.write_official(pathlib.Path(sys.argv[1]))"


def official_files(folder: Path) -> dict[str, Asset]:
    """The three files with random weights, written by another process, whose memory is not to be measured."""
    path = [str(ROOT / "tests" / "support"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE, str(folder)], env=environ, check=True)
    return {role: dataclasses.replace(file, digest=file.found(folder / file.name)) for role, file in FILES.items()}


class Growth:
    """GB by which this process's memory is, at its peak, more than when the object was made."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self._before = memory("VmRSS")

    def peak(self) -> float:
        """So far."""
        return memory("VmHWM") - self._before


def feed(live: LiveScoring, images: NDArray[np.uint8], count: int) -> float:
    """Seconds that so many images take, each another: some of their pixels are drawn anew."""
    generator = np.random.default_rng(1)
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count))
        batch = images[start % DISTINCT :][: len(rows)]
        batch[:, :MARK, :MARK] = generator.integers(0, 256, (len(rows), MARK, MARK, 3), dtype=np.uint8)
        live.take(rows, batch)
    live.finish()
    return time.perf_counter() - began


def time_scores(metric: Metric) -> float:
    """Seconds from the features of 5000 images to CLIP score, FID and their intervals."""
    generator = np.random.default_rng(0)
    features = np.abs(generator.normal(size=(RUN, INCEPTION_DIMS))).astype(np.float32)
    tally = Tally(range(RUN))
    tally.add(Block(tuple(range(RUN)), ("",) * RUN, generator.normal(size=RUN), features))
    began = time.perf_counter()
    tally.scores(metric.statistics, metric.variant, metric.identity)
    return time.perf_counter() - began


def measure(device: str, count: int) -> int:
    """Measure, print, judge; the exit status."""
    about = environment()
    print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.2f}, torch {about['torch']}")
    captions = make_captions(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = official_files(folder)
        images = make_images(DISTINCT)
        growth, began = Growth(), time.perf_counter()
        with closing(ProcessScorer(partial(load_official_metrics, folder, files, device))) as scorer:
            loaded = time.perf_counter()
            scorer.score(images[:BLOCK], (captions * BLOCK)[:BLOCK])
            first = time.perf_counter() - loaded
            where = scorer.metric.identity["device"]
            print(f"scorer on {where}: {loaded - began:.1f} s to load, first block {first:.2f} s")
            collector = Collector(
                scorer,
                dict(enumerate(captions)),
                writer=RecordWriter(folder / RECORD, {}),
                images=KeptImages(folder / IMAGES, WORST, {}),
            )
            seconds = feed(LiveScoring(collector, list(range(count)), {}, ExitStack()), images, count)
            print(f"{count} images in {seconds:.2f} s: {count / seconds:.1f} images/s")
            here, there = growth.peak(), {name: memory(name, scorer.pid) for name in ("VmHWM", "RssFile", "RssShmem")}
    growth = Growth()
    scores = time_scores(scorer.metric)
    total = first + RUN * seconds / count + scores
    print(
        f"{RUN} images: {total:.1f} s, {scores:.1f} of them for FID's distance and the intervals (at most {AT_MOST_S})"
    )
    peak = max(here + there["VmHWM"], growth.peak())
    print(
        f"peak host memory: {peak:.2f} GB (at most {AT_MOST_GB}): {here:.2f} here, {there['VmHWM']:.2f} in the scorer's"
    )
    print(f"  process, of it libraries {there['RssFile']:.2f} and the images in both {there['RssShmem']:.2f};")
    print(f"  afterwards, for FID, {growth.peak():.2f}")
    added = 2 * BLOCK * seconds / count + scores
    print(f"computed, beyond the generation of images slower than {count / seconds:.0f} a second: {added:.1f} s")
    shared = there["RssFile"] + there["RssShmem"]
    print(f"without libraries that a GPU engine maps too, and the images counted once: {peak - shared:.2f} GB")
    met = total <= AT_MOST_S and peak <= AT_MOST_GB
    judged = device != "cpu" and int(about["cores"]) >= CORES
    print(("ok" if met else "MISSED") if judged else f"not judged: the target is for a GPU and {CORES} cores")
    return int(judged and not met)
