"""A run's live scoring, from images in memory to scores: `python scorer.py --live --device cuda`.

`LiveScoring` takes 5000 images of 1024x1024 and scores them in a process of its own, with the networks of the variant
`mlperf` and seeded random weights in files like the published ones; hashes, record and pictures of the worst images are
those of a run. Most of them come from a record, as of a run that is resumed. The others come

    at once       as fast as they are taken: what the live path can do
    drawn         with `--engine` alone: by an engine on the same GPU, see `scoring_overlap.py`
    at a pace     slower than they can be scored, as a run's; timed is what is left to do after the last one: its
                  block, and from the record of all 5000 the scores and their intervals

What scoring costs a run beyond its generation, in seconds and in host memory, is judged on a GPU with 16 cores: status
1 if it is more than the target. Memory is proportional (Pss), so that pages of libraries that the drawing process maps
too are counted once; at its peak in each process.
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
from full_size import SIDE, make_captions, make_images, memory, proportional

from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.kept_images import IMAGES, WORST, KeptImages
from sdxl_engine.accuracy.official import INCEPTION_DIMS, load_official_metrics
from sdxl_engine.accuracy.official_files import FILES
from sdxl_engine.accuracy.process_scorer import ProcessScorer
from sdxl_engine.accuracy.records import RECORD, Block, RecordWriter, read_record
from sdxl_engine.accuracy.tally import Tally
from sdxl_engine.environment import environment
from sdxl_engine.live_scoring import LiveScoring
from sdxl_engine.shards import BLOCK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sdxl_engine.assets.manifest import Asset

BATCH, DISTINCT, MARK = 8, 64, 64
RUN = 5000
AT_MOST_S, AT_MOST_GB, CORES = 29.0, 2.0, 16
PATIENCE_S = 120.0
ROOT = Path(__file__).parents[1]
WRITE = "import pathlib, sys, random_official; random_official.write_official(pathlib.Path(sys.argv[1]))"


def official_files(folder: Path) -> dict[str, Asset]:
    """The three files with random weights, written by another process, whose memory is not to be measured."""
    path = [str(ROOT / "tests" / "support"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE, str(folder)], env=environ, check=True)
    return {role: dataclasses.replace(file, digest=file.found(folder / file.name)) for role, file in FILES.items()}


class Growth:
    """GB by which memory is more than when the object was made: this process's and, of now, that of another.

    Attributes:
        before: GB that this process had.
    """

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self.before = proportional()

    def here(self) -> float:
        """Of this process, at its peak."""
        return peak() - self.before


def peak(process: int | str = "self") -> float:
    """GB that a process had at most: what it has, and by how much it has had more."""
    return proportional(process) + memory("VmHWM", process) - memory("VmRSS", process)


def earlier_record(folder: Path, count: int) -> Path:
    """The record of so many images with random scores, as of an earlier part of the run."""
    generator = np.random.default_rng(0)
    with closing(RecordWriter(folder / RECORD, {})) as writer:
        for start in range(0, count, BLOCK):
            ids = tuple(range(start, min(start + BLOCK, count)))
            features = np.abs(generator.normal(size=(len(ids), INCEPTION_DIMS))).astype(np.float32)
            writer.append(Block(ids, ("0" * 64,) * len(ids), generator.normal(size=len(ids)), features))
    return folder / RECORD


class LivePath:
    """Live scoring of a run of 5000 images, of which some are yet to come.

    Args:
        folder: For record and pictures.
        scorer: Scores.
        left: How many images are to come, after whole blocks.
    """

    def __init__(self, folder: Path, scorer: ProcessScorer, left: int) -> None:
        self.path, self._scorer, self._next = earlier_record(folder, RUN - left), scorer, RUN - left
        record = read_record(self.path)
        self._collector = Collector(
            scorer,
            dict(enumerate(make_captions(RUN))),
            writer=RecordWriter(self.path, record=record),
            record=record,
            images=KeptImages(folder / IMAGES, WORST, {}, record.clip),
        )
        self._live = LiveScoring(self._collector, list(range(RUN)), record.digests, ExitStack())

    def take(self, images: NDArray[np.uint8]) -> None:
        """Take a batch in."""
        self._live.take(np.arange(self._next, self._next + len(images)), images)
        self._next += len(images)

    def settle(self) -> None:
        """Wait until all whole blocks are scored and in the record."""
        until = time.perf_counter() + PATIENCE_S
        while len(self._collector.tally) < self._next - self._next % BLOCK:
            if time.perf_counter() > until:
                self._live.finish()  # raises what went wrong
                raise TimeoutError(f"a block was not scored in {PATIENCE_S} s")
            time.sleep(0.001)

    def finish(self) -> tuple[float, float]:
        """Seconds until the last image is scored, and from there to the run's scores, made from its record."""
        began = time.perf_counter()
        self._live.finish()
        scored = time.perf_counter()
        tally, metric = Tally(range(RUN)), self._scorer.metric
        for block in read_record(self.path).blocks:
            tally.add(block)
        tally.scores(metric.statistics, metric.variant, metric.identity)
        return scored - began, time.perf_counter() - scored


class Feed:
    """Images to take, each another: some of their pixels are drawn anew.

    Args:
        side: Of an image, pixels.
    """

    def __init__(self, side: int) -> None:
        self._images = np.ascontiguousarray(make_images(DISTINCT)[:, :side, :side])
        self._generator = np.random.default_rng(1)
        self._start = 0

    def batch(self, count: int = BATCH) -> NDArray[np.uint8]:
        """(count, side, side, 3) uint8; overwritten by later batches."""
        batch = self._images[self._start : self._start + count]
        self._start = (self._start + BATCH) % DISTINCT
        batch[:, :MARK, :MARK] = self._generator.integers(0, 256, batch[:, :MARK, :MARK].shape, dtype=np.uint8)
        return batch

    def give(self, take: Callable[[NDArray[np.uint8]], None], count: int, pace: float | None = None) -> float:
        """Give so many images to `take`; at `pace` a second or as fast as it takes them. Returns seconds."""
        began = time.perf_counter()
        for start in range(0, count, BATCH):
            batch = self.batch(min(BATCH, count - start))
            if pace is not None:
                time.sleep(max(0.0, began + start / pace - time.perf_counter()))
            take(batch)
        return time.perf_counter() - began


def measure(options: argparse.Namespace) -> int:
    """Measure, print, judge; the exit status."""
    about = environment()
    print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.2f}, torch {about['torch']}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = official_files(folder)
        drawing = None
        if options.engine is not None:
            from scoring_overlap import Drawing

            drawing = Drawing(options.engine, options.precision, options.engine_device or options.device)
        feed = Feed(SIDE if drawing is None else drawing.side)
        at_once = -(-(options.images or 512) // BLOCK) * BLOCK
        drawn = 0 if drawing is None else drawing.images(options.batches, options.rounds)
        paced = -(-options.paced // BLOCK) * BLOCK + (RUN - at_once - drawn) % BLOCK
        growth, began = Growth(), time.perf_counter()
        load = partial(load_official_metrics, folder, files, options.device)
        scorer = stack.enter_context(closing(ProcessScorer(load)))
        loaded = time.perf_counter() - began
        print(f"scorer on {scorer.metric.identity['device']}: {loaded:.1f} s to load; {sizes(scorer.pid)}", flush=True)
        path = LivePath(folder, scorer, at_once + drawn + paced)
        first = feed.give(path.take, BLOCK) + timed(path.settle)
        print(f"first block: {first:.2f} s; {sizes(scorer.pid)}", flush=True)
        seconds = feed.give(path.take, at_once - BLOCK) + timed(path.settle) if at_once > BLOCK else first
        rate = max(at_once - BLOCK, BLOCK) / seconds
        print(f"at once: {rate:.1f} images/s, {RUN / rate:.1f} s for {RUN} images", flush=True)
        if drawing is not None:
            feed.give(path.take, drawing.AHEAD)
        slower = 0.0 if drawing is None else drawing.slowdown(path, options.batches, options.rounds)
        late = feed.give(path.take, paced, options.pace) - paced / options.pace
        during = growth.here(), peak(scorer.pid)
        print(f"memory of the scorer's process: {sizes(scorer.pid)}")
        afterwards = Growth()
        rest, scores = path.finish()
        print(f"at {options.pace:.0f} images/s: {rest:.2f} s from the last image to its scores, then {scores:.2f} s")
        print(f"  from the record of {RUN} to the run's scores ({late:+.2f} s against the pace)")
        beyond, most = RUN * slower + rest + scores, max(sum(during), afterwards.here())
        if drawing is not None:
            print(f"an image is drawn {1e3 * slower:.2f} ms slower: {RUN * slower:.1f} s for {RUN} images")
            drawing.close()
    what, above = ("after the last image", "images") if drawing is None else ("beyond generation", "engine")
    print(f"{what}: {beyond:.1f} s (at most {AT_MOST_S}), with loading before the first image {beyond + loaded:.1f} s")
    print(f"host memory above the {above}: {most:.2f} GB (at most {AT_MOST_GB}):")
    print(f"  {during[0]:.2f} in this process (which has {growth.before:.2f}), {during[1]:.2f} in the scorer's;")
    print(f"  after the run, for the scores, {afterwards.here():.2f}")
    met = beyond <= AT_MOST_S and most <= AT_MOST_GB
    judged = options.device != "cpu" and int(about["cores"]) >= CORES
    print(("ok" if met else "MISSED") if judged else f"not judged: the target is for a GPU and {CORES} cores")
    return int(judged and not met)


def timed(work: Callable[[], None]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def sizes(process: int) -> str:
    """A process's memory in words."""
    now = ", ".join(f"{name} {memory(name, process):.2f}" for name in ("RssAnon", "RssFile", "RssShmem", "VmHWM"))
    return f"{now}, Pss {proportional(process):.2f} GB"
