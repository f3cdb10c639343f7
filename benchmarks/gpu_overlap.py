"""What CUDA graphs and the overlap of copies are worth, and what LoadGen costs: `python benchmarks/gpu_overlap.py`.

One engine on one model, first the bare pipeline, then the same one under LoadGen's PerformanceOnly:

    eager, graphs       each operation launched by the host, or the whole batch as one CUDA graph
    one at a time       a batch is drawn, and its images copied to the host, before the next is started
    overlapped          the next batch is started before the images of this one are waited for

Prints samples/s, the fastest of the rounds for the bare pipeline, and LoadGen's figure over the bare one's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sdxl_engine.assemble import image_source, open_pipeline
from sdxl_engine.environment import environment
from sdxl_engine.loadgen.runner import run_loadgen
from sdxl_engine.loadgen.spec import LoadgenSpec
from sdxl_engine.run_system import batch_size
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from sdxl_engine.loadgen.source import ImageSource
    from sdxl_engine.pipeline import Pipeline

WAYS = (("one at a time", "gpu_overlap:one_phase"), ("overlapped", "sdxl_engine.assemble:image_source"))
"""Ways to draw, and the factory that gives LoadGen each."""
CAPTIONS = 128
"""Captions in LoadGen's library; samples are drawn from them with repetition."""


def one_phase(settings: dict[str, Any]) -> ImageSource:
    """A factory for LoadGen: our pipeline, asked through `generate` alone, as a third party's would be."""
    source = image_source(settings)
    source.generate = source.generate  # type: ignore[method-assign]
    return source


def batches(pipeline: Pipeline, count: int) -> list[np.ndarray]:
    """Rows of so many full batches."""
    size = pipeline.batch_size
    return [(np.arange(size) + size * number) % CAPTIONS for number in range(count)]


def one_at_a_time(pipeline: Pipeline, count: int) -> None:
    """Draw so many batches, each to the end."""
    for rows in batches(pipeline, count):
        pipeline.start(rows).result()


def overlapped(pipeline: Pipeline, count: int) -> None:
    """Draw so many batches, each started before the one before is waited for."""
    ahead = None
    for rows in batches(pipeline, count):
        started, ahead = ahead, pipeline.start(rows)
        if started is not None:
            started.result()
    if ahead is not None:
        ahead.result()


def bare(settings: RunSettings, count: int, rounds: int, *, brief: bool) -> dict[str, float]:
    """Samples/s of the pipeline by itself, by way of drawing; `brief` leaves one at a time out."""
    began = time.perf_counter()
    pipeline = open_pipeline(settings)
    opened = time.perf_counter()
    pipeline.warm_up()
    print(f"opened in {opened - began:.1f} s, warmed up in {time.perf_counter() - opened:.1f} s", flush=True)
    rates = {}
    for name, draw in (("one at a time", one_at_a_time), ("overlapped", overlapped))[brief:]:
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            draw(pipeline, count)
            seconds.append(time.perf_counter() - began)
        rates[name] = count * pipeline.batch_size / min(seconds)
    pipeline.close()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for LoadGen's process, which loads the same model
    return rates


def under_loadgen(settings: RunSettings, factory: str, count: int, folder: Path) -> float:
    """Samples/s by LoadGen's own clock."""
    spec = LoadgenSpec(
        mode="PerformanceOnly",
        sample_count=CAPTIONS,
        min_query_count=count * batch_size(settings),
        min_duration_ms=0,
        log_dir=folder,
        factory=factory,
        factory_options={"settings": settings.to_json()},
        sys_path=(str(Path(__file__).parent),),
    )
    rate = run_loadgen(spec).samples_per_second
    assert rate is not None
    return rate


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes", help="shapes, or the folder of a checkpoint (default: shapes)")
    parser.add_argument("--model-opt", default="DeepCache", help="NoOpt, DeepCache or DeepCachePruned")
    parser.add_argument("--engine", default="torch", help="name of an engine (default: torch)")
    parser.add_argument("--precision", default="fp16", help="of the engine (default: fp16)")
    parser.add_argument("--device", default="cuda", help="of the engine (default: cuda)")
    parser.add_argument("--batches", type=int, default=50, help="full ones, per round (default: 50)")
    parser.add_argument("--batch-size", type=int, help="images per batch (default: as in a run)")
    parser.add_argument(
        "--brief", action="store_true", help="only what a run does: graphs where they can be, overlapped"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the bare pipeline (default: 3)")
    arguments = parser.parse_args()
    on_gpu = arguments.device.startswith("cuda")
    about = environment()
    where = torch.cuda.get_device_name(arguments.device) if on_gpu else about["processor"]
    print(f"{where}, torch {about['torch']}, {arguments.engine} {arguments.precision}, {arguments.model_opt}")
    print(f"{'samples/s':24} {'bare':>10} {'LoadGen':>10} {'LoadGen/bare':>14}")
    for graphs in ("auto",) if arguments.brief else ("off", "on") if on_gpu else ("off",):
        settings = RunSettings(
            model=arguments.model,
            model_opt=arguments.model_opt,
            engine=arguments.engine,
            precision=arguments.precision,
            device=arguments.device,
            graphs=graphs,
            batch_size=arguments.batch_size,
            samples=CAPTIONS,
        )
        rates = bare(settings, arguments.batches, arguments.rounds, brief=arguments.brief)
        for way, factory in WAYS[1:] if arguments.brief else WAYS:
            with tempfile.TemporaryDirectory() as folder:
                measured = under_loadgen(settings, factory, arguments.batches, Path(folder) / "logs")
            name = f"{'eager' if graphs == 'off' else 'graphs'}, {way}"
            print(f"{name:24} {rates[way]:10.2f} {measured:10.2f} {measured / rates[way]:14.4f}", flush=True)


if __name__ == "__main__":
    main()
