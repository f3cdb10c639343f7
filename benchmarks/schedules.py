"""Quality and speed of cache schedules on the embedded model, in one run: `make schedules`.

One pipeline draws the same captions under each schedule. The schedules take turns, batch by batch, so that a slow
spell of the machine hits all of them alike; the speed is of all batches together. The images are scored afterwards,
when nothing is timed. Writes the picture docs/schedules.png and the table between the marks in docs/schedules.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.image_pairs import psnr
from sdxl_engine.accuracy.placement import open_scorer
from sdxl_engine.assemble import open_pipeline
from sdxl_engine.cache_schedule import deep_steps, deep_steps_text, parse_deep_steps
from sdxl_engine.environment import environment
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.source import model_of
from sdxl_engine.run_captions import own_share
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sdxl_engine.pipeline import Pipeline
    from sdxl_engine.results import Scores

DOCS = Path(__file__).parents[1] / "docs"
SHALLOW_STEPS = range(5)
LISTS = ("0,5,10,15,18",)
"""As many deep steps as N = 3 has, the last of them two steps before the end, where N = 3 has it four before."""


@dataclass
class Sweep:
    """One schedule, and what it gave."""

    name: str
    deep: tuple[int, ...]
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    seconds: float = 0.0
    scores: Scores | None = None

    @property
    def speed(self) -> float:
        """Samples per second."""
        return sum(map(len, self.images)) / self.seconds

    def score(self, name: str) -> float:
        """`clip` or `fid`."""
        return float(getattr(self.scores, name))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=128, help="captions; FID takes more than 64")
    parser.add_argument("--engine", default="auto", help="name of an engine")
    parser.add_argument("--deep-steps", action="append", metavar="LIST", help=f"a list to add (default: {LISTS[0]})")
    parser.add_argument("--output", type=Path, default=DOCS, metavar="DIR", help="of schedules.png and schedules.md")
    return parser.parse_args()


def draw(pipeline: Pipeline, sweeps: Sequence[Sweep]) -> None:
    """Draw all captions under every schedule, in turns."""
    batches = [
        np.arange(start, min(start + pipeline.batch_size, pipeline.image_count))
        for start in range(0, pipeline.image_count, pipeline.batch_size)
    ]
    pipeline.warm_up()
    for rows in batches:
        for sweep in sweeps:
            if pipeline.deep != sweep.deep:
                pipeline.deep = sweep.deep
            if pipeline.engine.device.type == "cuda":
                pipeline.warm_up()  # another schedule is another CUDA graph
            began = time.perf_counter()
            images = pipeline.generate(rows)
            sweep.seconds += time.perf_counter() - began
            sweep.images.append(images)


def score(settings: RunSettings, sweeps: Sequence[Sweep]) -> None:
    """Score every schedule's images with the model's own metric networks."""
    model = model_of(settings)
    captions = {caption.id: caption.text for caption in own_share(settings, model)}
    with open_scorer(model, settings.metrics, settings.metrics_device) as scorer:
        for sweep in sweeps:
            collector = Collector(scorer, captions)
            collector.take(list(captions), np.concatenate(sweep.images))
            collector.finish()
            sweep.scores = collector.scores()


def table(sweeps: Sequence[Sweep]) -> str:
    """In Markdown; the first schedule is the one that the others are compared with."""
    columns = ("schedule", "deep steps", "how many", "samples/s", "times", "CLIP", "FID", "PSNR to NoOpt, dB")
    rows = [columns, ("---",) * len(columns)]
    for sweep in sweeps:
        clip, fid = sweep.score("clip"), sweep.score("fid")
        likeness = likeness_to(sweeps[0], sweep)
        figures = (f"{sweep.speed:.2f}", f"{sweep.speed / sweeps[0].speed:.2f}", f"{clip:.3f}", f"{fid:.3f}")
        rows.append((sweep.name, f"`{deep_steps_text(sweep.deep)}`", str(len(sweep.deep)), *figures, f"{likeness:.1f}"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def likeness_to(reference: Sweep, sweep: Sweep) -> float:
    """Mean PSNR of a schedule's images to those of another, dB."""
    pairs = zip(np.concatenate(sweep.images), np.concatenate(reference.images), strict=True)
    return float(np.mean([psnr(one, other) for one, other in pairs]))


def picture(path: Path, sweeps: Sequence[Sweep], count: int, title: str) -> None:
    """CLIP score and FID against speed, with the model's own ranges."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    ranges = next((entry for entry in model_of(RunSettings(model="shapes")).ranges if entry.count == count), None)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("clip", "fid"), strict=True):
        for some, style in ((sweeps[: len(SHALLOW_STEPS)], "o-"), (sweeps[len(SHALLOW_STEPS) :], "s")):
            axis.plot([sweep.speed for sweep in some], [sweep.score(name) for sweep in some], style)
        for sweep in sweeps:
            where = (sweep.speed, sweep.score(name))
            axis.annotate(sweep.name, where, xytext=(5, 5), textcoords="offset points", fontsize=8)
        if ranges is not None:
            valid = getattr(ranges, name)
            axis.axhspan(valid.lower, valid.upper, alpha=0.15, label=f"range of shapes, {count} captions")
            axis.legend(fontsize=8)
        axis.set_xlabel("samples/s")
        axis.set_ylabel({"clip": "CLIP score, higher is better", "fid": "FID, lower is better"}[name])
        axis.margins(0.15)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    """Draw, score, write."""
    options = arguments()
    settings = RunSettings(model="shapes", model_opt="DeepCache", engine=options.engine, samples=options.samples)
    sweeps = [Sweep("NoOpt" if n == 0 else f"N = {n}", tuple(deep_steps("DeepCache", STEPS, n))) for n in SHALLOW_STEPS]
    sweeps += [Sweep("list", parse_deep_steps(text, source="--deep-steps")) for text in options.deep_steps or LISTS]
    pipeline = open_pipeline(settings)
    about = environment()
    draw(pipeline, sweeps)
    where = (
        f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f}, engine {pipeline.engine.name}, "
        f"{options.samples} captions, torch {about['torch']}, {datetime.now(UTC):%Y-%m-%d}"
    )
    pipeline.close()
    score(settings, sweeps)
    text = f"{where}:\n\n{table(sweeps)}"
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    picture(options.output / "schedules.png", sweeps, options.samples, f"shapes, {where}")
    page = options.output / "schedules.md"
    begin, end = "<!-- sweep: begin -->\n", "<!-- sweep: end -->\n"
    before, _, rest = (page.read_text(encoding="utf-8") if page.exists() else begin + end).partition(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
