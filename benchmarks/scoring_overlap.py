"""What live scoring costs an engine that draws on the same GPU: `python scorer.py --live --device cuda --engine cuda`.

Rounds without and with scoring take turns. A block lacks one batch when a round begins and again when it ends, so that
as many blocks are scored within its time as are drawn. Engine `cuda` draws 1024x1024 with full-size random weights that
are made on the GPU; any other draws with the embedded model, which tests all else where there is no GPU.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.loadgen.in_flight import drawn
from sdxl_engine.shards import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_path import LivePath
    from numpy.typing import NDArray

    from sdxl_engine.pipeline import Pipeline

BATCH, CAPTIONS = 8, 128


def full_size(precision: str) -> Pipeline:
    """Engine `cuda` with DeepCache, as in `peers.py`."""
    import random_sdxl
    import torch

    from sdxl_engine.engines.cuda.computing import Computing

    parts, model_opt = random_sdxl.make_parts(), "DeepCache"
    engine = random_sdxl.cuda_engine(parts, Computing(torch.device("cuda")), precision, model_opt)
    return random_sdxl.pipeline(engine, model_opt)


def embedded(engine: str, precision: str, device: str) -> Pipeline:
    """Another engine, with the embedded model."""
    from sdxl_engine.assemble import open_pipeline
    from sdxl_engine.settings import RunSettings

    return open_pipeline(
        RunSettings(engine=engine, precision=precision, device=device, batch_size=BATCH, samples=CAPTIONS)
    )


class Drawing:
    """A pipeline that is warmed up.

    Args:
        engine: Its engine.
        precision: Of the engine.
        device: Of the engine.

    Attributes:
        side: Of its images, pixels.
    """

    AHEAD = BLOCK - BATCH
    """Images that are given to the scorer before `slowdown`."""

    def __init__(self, engine: str, precision: str, device: str) -> None:
        began = time.perf_counter()
        self._pipeline = full_size(precision) if engine == "cuda" else embedded(engine, precision, device)
        self.side = self._pipeline.spec.image_side
        gc.collect()
        opened = time.perf_counter()
        self._pipeline.warm_up()
        warm = time.perf_counter() - opened
        print(f"engine {engine} {precision}: {opened - began:.1f} s to make, {warm:.1f} s to warm up", flush=True)
        images = self._pipeline.generate(np.arange(BATCH))
        spread = images.std(axis=(1, 2, 3))
        print(f"its images: values {images.min()} to {images.max()}, each spread by {spread.min():.1f} at least")
        if not spread.min() > 1:
            raise SystemExit("what is drawn is not to be timed: an image is of one colour")  # NaN computes faster

    @classmethod
    def images(cls, batches: int, rounds: int) -> int:
        """How many images are scored before and in so many rounds."""
        return cls.AHEAD + rounds * whole_blocks(batches) * BATCH

    def slowdown(self, path: LivePath, batches: int, rounds: int) -> float:
        """Seconds by which an image is drawn slower while images are scored: medians of the rounds."""
        count = whole_blocks(batches)
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(rounds):
            seconds["without"].append(self._draw(count, lambda _: None))
            seconds["with"].append(self._draw(count, path.take))
            path.settle()
        for name, found in seconds.items():
            rates = ", ".join(f"{1 / each:.3f}" for each in found)
            print(f"drawn {name:7} scoring: {1 / np.median(found):.3f} samples/s ({rates})", flush=True)
        return float(np.median(seconds["with"]) - np.median(seconds["without"]))

    def close(self) -> None:
        """Give the engine's memory back."""
        self._pipeline.close()

    def _draw(self, batches: int, take: Callable[[NDArray[np.uint8]], None]) -> float:
        """Seconds for an image, of so many batches; one before them, which nothing is started ahead of, is left out."""
        rows = np.arange((1 + batches) * BATCH) % CAPTIONS
        source = drawn(self._pipeline, rows)
        next(source)
        began = time.perf_counter()
        for _, images in source:
            take(images)
        return (time.perf_counter() - began) / (batches * BATCH)


def whole_blocks(batches: int) -> int:
    """At least so many batches, that make whole blocks."""
    return -(-batches * BATCH // BLOCK) * BLOCK // BATCH
