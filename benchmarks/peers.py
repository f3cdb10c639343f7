"""SDXL at full size on one GPU, by diffusers and by our engines, in one run: `python benchmarks/peers.py [--rows a,b]`.

    eager        diffusers' StableDiffusionXLPipeline, fp16
    deepcache    the same with the package DeepCache (interval 2, branch 0), whose shallow step runs one residual block
                 of the outermost level where the benchmark's runs three
    torch        our pipeline and engine `torch`, fp16, DeepCache
    recipe       the same with NVIDIA's FP8 recipe simulated in the UNet: for its errors, not its speed
    cuda-fp16    our engine `cuda`: DeepCache, NoOpt
    cuda-fp8     the same in fp8
    pruned       the same in fp8 with a deep UNet of 0.68 of the FLOPs: 32 of the 60 transformer
                 layers at 32x32 are left out, evenly; nothing is implied about its images
    compile      diffusers with torch.compile, channels last and fused projections: takes minutes, so only if named

Seeded random weights, 8 images of 1024x1024, 20 steps, guidance 8, decoder in fp16. samples/s is wall clock over whole
batches after a warm-up, from prompts to uint8 images on the host; our pipeline starts a batch before it waits for the
one before, as LoadGen's worker does. Parts are timed one by one: ours as CUDA graphs, diffusers' as it calls them.
TFLOP/s are those of the function, whatever a contender saves, and their share of the ceiling is of an 8192^3 product
in the row's precision. Errors are of the final latents, and PSNR of the images, against fp32 (2 images, DeepCache).
A row is printed as soon as it is there; what fails is a row.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers_pipeline
import numpy as np
import random_sdxl
import torch
from gpu_overlap import overlapped
from gpu_state import Monitor, captured, ceilings
from random_sdxl import BATCH
from simulated_fp8 import simulate

from sdxl_engine.engines.cuda.computing import Computing
from sdxl_engine.engines.cuda.timing import milliseconds
from sdxl_engine.engines.torch_engine import TorchEngine
from sdxl_engine.environment import environment
from sdxl_engine.network_buffers import NetworkBuffers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.pipeline import Pipeline

NOOPT, DEEPCACHE, PRUNED = "NoOpt", "DeepCache", "DeepCachePruned"
PARTS = ("text", "deep", "shallow", "decoder", "copy")
GIB = 2**30


@dataclass
class Row:
    """A line of the table.

    Args:
        name: Of the contender.
        model_opt: The variant.
        precision: `fp16` or `fp8`.
        samples_per_second: End to end.
        ms: By part.
        tflops: Of the function, per second.
        ceiling: The share of the product's rate in `precision`.
        peak_gib: Most memory that tensors took, weights and warm-up counted.
        clock_mhz: Median, see `Monitor`.
        power_w: Likewise.
        relative_error: |latents - those of fp32| / |those of fp32|.
        snr_db: The same as signal to noise.
        psnr_db: Of the uint8 images.
        note: What else there is to say.
        error: What went wrong, in place of figures.
    """

    name: str
    model_opt: str
    precision: str = "fp16"
    samples_per_second: float | None = None
    ms: dict[str, float] = field(default_factory=dict)
    tflops: float | None = None
    ceiling: float | None = None
    peak_gib: float | None = None
    clock_mhz: float | None = None
    power_w: float | None = None
    relative_error: float | None = None
    snr_db: float | None = None
    psnr_db: float | None = None
    note: str = ""
    error: str = ""

    def judge(self, drawn: Drawn, exact: Drawn) -> None:
        """Take the distance from fp32."""
        (latents, images), (expected, expected_images) = drawn, exact
        error = ((latents.double() - expected.double()).norm() / expected.double().norm()).item()
        squared = np.mean((images.astype(np.float64) - expected_images) ** 2)
        self.relative_error = error
        self.snr_db = -20 * math.log10(error) if error else None
        self.psnr_db = 10 * math.log10(255**2 / squared) if squared else None


Drawn = tuple[torch.Tensor, "NDArray[np.uint8]"]


class Bench:
    """What the contenders share.

    Args:
        batches: Timed per row.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.compute = Computing(torch.device("cuda"))
        self.parts = random_sdxl.make_parts()
        self.ceilings = ceilings()

    @cached_property
    def exact(self) -> Drawn:
        """By engine `torch` in fp32."""
        engine = TorchEngine(random_sdxl.request("fp32"), random_sdxl.networks(self.parts, torch.float32))
        return random_sdxl.final_latents(engine, 2)

    def time(
        self, row: Row, work: random_sdxl.Work, warm_up: Callable[[], object], draw: Callable[[int], object]
    ) -> None:
        """Fill in speed, memory and clock.

        Args:
            row: To fill in.
            work: Of one image.
            warm_up: Run first, untimed.
            draw: Draws so many batches.
        """
        random_sdxl.free()
        torch.cuda.reset_peak_memory_stats()
        warm_up()
        torch.cuda.synchronize()
        with Monitor() as monitor:
            began = time.perf_counter()
            draw(self.batches)
            seconds = (time.perf_counter() - began) / (self.batches * BATCH)
        row.samples_per_second = 1 / seconds
        row.tflops = work.image(row.model_opt) / seconds / 1e12
        row.ceiling = row.tflops / self.ceilings[row.precision]
        row.peak_gib = torch.cuda.max_memory_allocated() / GIB
        row.clock_mhz, row.power_w, row.note = monitor.clock_mhz, monitor.power_w, monitor.note


def diffusers_rows(bench: Bench, name: str, prepare: Callable[[Any], None] | None = None) -> Iterator[Row]:
    """The pipeline of diffusers, changed by `prepare`."""
    cached = name == "deepcache"
    row = Row(f"diffusers, {name}", DEEPCACHE if cached else NOOPT)
    pipe = diffusers_pipeline.make(bench.parts)
    if prepare is not None:
        prepare(pipe)
    left_out = diffusers_pipeline.NOT_RUN if cached else ()
    work = random_sdxl.work(bench.parts["unet"], left_out=left_out)
    bench.time(
        row,
        work,
        lambda: diffusers_pipeline.draw(pipe),
        lambda count: [diffusers_pipeline.draw(pipe) for _ in range(count)],
    )
    row.ms = diffusers_pipeline.part_times(pipe, cached=cached)
    yield row


def compiled_rows(bench: Bench) -> Iterator[Row]:
    """With torch.compile; the note says how long the first batch takes."""
    began = time.perf_counter()

    def prepare(pipe: Any) -> None:
        diffusers_pipeline.compile_networks(pipe)
        diffusers_pipeline.draw(pipe)

    for row in diffusers_rows(bench, "compile", prepare):
        row.note = f"{time.perf_counter() - began:.0f} s with compilation"
        yield row
    torch._dynamo.reset()


def torch_rows(bench: Bench) -> Iterator[Row]:
    """Our engine `torch`: the plain fp16 that the others' errors are compared with."""
    request = random_sdxl.request("fp16", spec=random_sdxl.FP16_DECODER)
    engine = TorchEngine(request, random_sdxl.networks(bench.parts))
    row = Row("ours, torch", DEEPCACHE)
    own_rows(bench, row, engine, random_sdxl.work(bench.parts["unet"]))
    row.judge(random_sdxl.final_latents(engine), bench.exact)
    yield row


def recipe_rows(bench: Bench) -> Iterator[Row]:
    """Engine `torch` with the FP8 recipe simulated: no speed, the errors that those of `cuda` in fp8 stand beside."""
    networks = random_sdxl.networks(bench.parts)
    engine = TorchEngine(random_sdxl.request("fp16", spec=random_sdxl.FP16_DECODER), networks)
    pipeline = random_sdxl.pipeline(engine, NOOPT, graphs=False)
    layers = simulate(networks["unet"].get_submodule("unet"), lambda: pipeline.generate(np.arange(BATCH)))
    row = Row("recipe, simulated", DEEPCACHE, "fp8", note=f"{layers} layers of the UNet; decoder in fp16")
    row.judge(random_sdxl.final_latents(engine, 2), bench.exact)
    yield row


def cuda_rows(bench: Bench, precision: str) -> Iterator[Row]:
    """Our engine `cuda` with the full UNet."""
    engine = random_sdxl.cuda_engine(bench.parts, bench.compute, precision, DEEPCACHE)
    work = random_sdxl.work(bench.parts["unet"])
    for model_opt in (DEEPCACHE, NOOPT):
        row = Row("ours, cuda", model_opt, precision)
        own_rows(bench, row, engine, work)
        if model_opt == DEEPCACHE:
            row.judge(random_sdxl.final_latents(engine), bench.exact)
        yield row


def pruned_rows(bench: Bench) -> Iterator[Row]:
    """Our engine `cuda` with a smaller deep UNet."""
    dropped = random_sdxl.layers_to_drop(bench.parts["unet"])
    engine = random_sdxl.cuda_engine(bench.parts, bench.compute, "fp8", PRUNED, dropped)
    work = random_sdxl.work(bench.parts["unet"], dropped)
    row = Row("ours, cuda", PRUNED, "fp8")
    own_rows(bench, row, engine, work)
    full = random_sdxl.work(bench.parts["unet"]).deep
    row.note = f"{len(dropped)} layers left out, {work.deep / full:.3f} of a deep step's FLOPs {row.note}".strip()
    yield row


def own_rows(bench: Bench, row: Row, engine: Engine, work: random_sdxl.Work) -> None:
    """Fill in a row of our pipeline."""
    pipeline = random_sdxl.pipeline(engine, row.model_opt)
    bench.time(row, work, pipeline.warm_up, lambda count: overlapped(pipeline, count))
    pipeline.forget_graphs()
    random_sdxl.free()
    row.ms = part_times(engine, pipeline)


@torch.inference_mode()
def part_times(engine: Engine, pipeline: Pipeline) -> dict[str, float]:
    """Milliseconds of each part, each a CUDA graph; what depends on the prompts alone belongs to the text."""
    networks = NetworkBuffers(engine, BATCH)
    bound = networks.bound(BATCH)
    rows = torch.arange(BATCH, device="cuda")
    steps = networks.steps(BATCH, pipeline.schedule.timesteps.tolist())

    def text() -> None:
        pipeline.encode_prompts(bound.buffers, bound.run, rows)
        if steps is not None:
            steps.begin()

    generator = torch.Generator("cuda").manual_seed(0)
    for name in ("sample", "vae.latent"):
        bound.buffers[name].normal_(generator=generator)
    bound.buffers["timestep"].fill_(500.0)
    ways: dict[str, Callable[[], None]] = {"text": text, "deep": bound.run["unet"], "decoder": bound.run["vae"]}
    if steps is not None:
        ways["deep"] = lambda: steps.deep(2)
    if len(pipeline.deep) < len(pipeline.schedule):
        ways["shallow"] = bound.run["shallow_unet"] if steps is None else lambda: steps.shallow(3)
    # Later graphs read what earlier ones left in their memory, so all live until the end.
    graphs, times = [], {}
    for name in sorted(ways, key=PARTS.index):
        graphs.append(captured(ways[name]))
        times[name] = milliseconds(graphs[-1].replay, 7)
    on_gpu = pipeline.post_process(bound.buffers["images"])
    on_host = torch.empty(on_gpu.shape, dtype=torch.uint8, pin_memory=True)
    times["copy"] = milliseconds(lambda: on_host.copy_(on_gpu, non_blocking=True), 7)
    if steps is not None:
        steps.end()
    networks.clear()
    return times


CONTENDERS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "eager": lambda bench: diffusers_rows(bench, "eager"),
    "deepcache": lambda bench: diffusers_rows(bench, "deepcache", diffusers_pipeline.enable_deep_cache),
    "torch": torch_rows,
    "recipe": recipe_rows,
    "cuda-fp16": lambda bench: cuda_rows(bench, "fp16"),
    "cuda-fp8": lambda bench: cuda_rows(bench, "fp8"),
    "pruned": pruned_rows,
    "compile": compiled_rows,
}
SECONDS = {
    "eager": 50,
    "deepcache": 30,
    "torch": 55,
    "recipe": 30,
    "cuda-fp16": 100,
    "cuda-fp8": 110,
    "pruned": 45,
    "compile": 220,
}
"""Estimates of how long each takes on an H100, for `--seconds-limit`; tuning takes half a minute for each precision."""
USUAL = tuple(name for name in CONTENDERS if name != "compile")
NEEDS = {"eager": "diffusers", "compile": "diffusers", "deepcache": "DeepCache"}
"""Packages, by contender."""

HEADER = (
    "| contender | variant | precision | samples/s | "
    + " | ".join(f"{part}, ms" for part in PARTS)
    + " | TFLOP/s | of the ceiling | peak GiB | SM MHz | W | latents' error | SNR, dB | PSNR, dB | |"
)


def line(row: Row) -> str:
    """A row in Markdown."""

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    cells = [row.name, row.model_opt, row.precision, shown(row.samples_per_second, ".3f")]
    cells += [shown(row.ms.get(part), ".2f") for part in PARTS]
    cells += [shown(row.tflops, ".0f"), shown(row.ceiling, ".2f"), shown(row.peak_gib, ".1f")]
    cells += [shown(row.clock_mhz, ".0f"), shown(row.power_w, ".0f"), shown(row.relative_error, ".2e")]
    cells += [shown(row.snr_db, ".1f"), shown(row.psnr_db, ".1f"), " ".join((row.note + " " + row.error).split())[:200]]
    return "| " + " | ".join(cells) + " |"


def run(names: list[str], batches: int, seconds_limit: float) -> dict[str, Any]:
    """Time the contenders and print their rows; all of it as JSON."""
    began = time.perf_counter()
    torch.backends.cudnn.benchmark = True  # for every contender: engine `cuda` sets it, and it is the process's
    bench = Bench(batches)
    gpu = torch.cuda.get_device_name()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    about = {**environment(), "gpu": gpu, "date": today}
    rates = ", ".join(f"{name} {rate:.0f} TFLOP/s" for name, rate in bench.ceilings.items())
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "diffusers", "transformers") if name in about)
    print(f"{gpu}, {today}, {versions}, batch {BATCH}; 8192^3 product: {rates}\n\n{HEADER}")
    print("|" + " --- |" * (HEADER.count("|") - 1), flush=True)
    rows: list[Row] = []
    for name in names:
        left = seconds_limit - (time.perf_counter() - began)
        if left < SECONDS[name]:
            found: Iterator[Row] = iter([Row(name, "", error=f"left out: {left:.0f} s left, {SECONDS[name]} needed")])
        elif name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            found = iter([Row(name, "", error=f"left out: the package {NEEDS[name]} is not installed")])
        else:
            found = guarded(bench, name)
        for row in found:
            rows.append(row)
            print(line(row), flush=True)
        random_sdxl.free()
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    return {"environment": about, "ceilings_tflops": bench.ceilings, "rows": [asdict(row) for row in rows]}


def guarded(bench: Bench, name: str) -> Iterator[Row]:
    """A contender's rows, and if it fails a row that says why."""
    try:
        yield from CONTENDERS[name](bench)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other contenders go on
        yield Row(name, "", error=f"{type(error).__name__}: {error}")


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(USUAL), help=f"of {','.join(CONTENDERS)} (default: all but compile)")
    parser.add_argument("--batches", type=int, default=3, help="timed per row (default: 3)")
    parser.add_argument("--seconds-limit", type=float, default=math.inf, help="leave out what would take longer")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()
    names = [name for name in CONTENDERS if name in arguments.rows.split(",")]
    if unknown := set(arguments.rows.split(",")) - set(CONTENDERS):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if not torch.cuda.is_available():
        parser.error("torch sees no NVIDIA GPU")
    document = run(names, arguments.batches, arguments.seconds_limit)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
