"""Images and captions of MLPerf's sizes, and a process's memory, for the benchmarks of the scorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 1024
WORDS = ("a", "the", "cat", "dog", "street", "plate", "table", "man", "sits", "on", "near", "with", "of", "red", "bus")


def make_images(count: int) -> NDArray[np.uint8]:
    """(count, 1024, 1024, 3) uint8: clouds, each another."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small]
    )


def make_captions(count: int) -> list[str]:
    """As long as MLPerf's: 7 to 20 words, 11 on average, a token each and two more."""
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, 7 + min(13, int(generator.exponential(4))))) for _ in range(count)]


def memory(name: str, process: int | str = "self") -> float:
    """A line of a process's /proc/<process>/status, GB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e9


def proportional(process: int | str = "self") -> float:
    """GB of a process's memory, its share of what several processes map: Pss."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e9
