"""`sdxl-engine generate-engines`: build an engine's files ahead of a run."""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
import time
from typing import TYPE_CHECKING

from sdxl_engine.commands import Outcome
from sdxl_engine.engines.tensorrt.entry import ENTRY
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import model_of
from sdxl_engine.models.spec import NETWORKS, read_spec
from sdxl_engine.run_engine import engine_entry, open_engine
from sdxl_engine.run_system import batch_sizes, run_config

if TYPE_CHECKING:
    import argparse

    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.settings import RunSettings

_ALIASES = {"deep-unet": "unet", "shallow-unet": "shallow_unet"}
"""The benchmark's names of networks (NVIDIA's v4.1 `gpu_batch_size`) that are not this project's."""

_TENSORRT_ONLY = ("batch_sizes", "workspace", "compute_capability", "force")


def add_generate_engines(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser(
        "generate-engines", parents=[shared], help="build the engine's files ahead of a run"
    )
    parser.add_argument("--scenario", default="Offline", help="in the names of TensorRT's plans (default: Offline)")
    plans = parser.add_argument_group("TensorRT")
    plans.add_argument(
        "--batch-size",
        dest="batch_sizes",
        metavar="N|NETWORK=N,...",
        help=f"most images at a time, for all networks or for each of {', '.join(NETWORKS)} (default: the machine's "
        "configuration's)",
    )
    plans.add_argument(
        "--workspace",
        type=float,
        metavar="GIB",
        help="limit of the builder's workspace (default: the machine's configuration's, else by free memory)",
    )
    plans.add_argument(
        "--compute-capability",
        metavar="X.Y,...",
        help="GPUs to build for ahead of time, TensorRT-RTX only (default: that of the GPU here, or all from 8.0)",
    )
    plans.add_argument("--force", action="store_true", help="build plans that are there and fit, too")


def generate_engines(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Build TensorRT's plans, or, of another engine, load it once, which builds what its cache does not hold."""
    model = model_of(settings)
    model.check_variant(settings.model_opt)
    model.verify()
    if settings.engine == ENTRY.name:
        return _plans(settings, arguments, model)
    given = [f"--{name.rstrip('s').replace('_', '-')}" for name in _TENSORRT_ONLY if getattr(arguments, name)]
    entry = engine_entry(settings)
    if given:
        raise UsageError(
            "these options are for the engine tensorrt",
            got=", ".join(given),
            expected=f"--engine {ENTRY.name}",
            source=f"engine {entry.name}",
        )
    began = time.monotonic()
    cache = settings.build_dir / "engines"
    open_engine(settings, model.checkpoint).close()
    seconds = time.monotonic() - began
    print(f"{entry.name}: ready in {cache} after {seconds:.1f} s")
    return Outcome(result={"engine": entry.name, "cache": cache, "seconds": seconds})


def _plans(settings: RunSettings, arguments: argparse.Namespace, model: ModelSource) -> Outcome:
    precision = ENTRY.precision(settings.precision, source="--precision")
    images = asked_sizes(arguments.batch_sizes, batch_sizes(settings))
    config = run_config(settings)
    capabilities = _capabilities(arguments.compute_capability)
    # Not before the options are checked: it imports torch.
    from sdxl_engine.engines.tensorrt.generate import FAILED, GenerateRequest, generate

    request = GenerateRequest(
        checkpoint=model.checkpoint,
        spec=read_spec(model.checkpoint),
        cache=settings.build_dir / "engines",
        model_opt=settings.model_opt,
        scenario=settings.scenario,
        precision=precision,
        images=images,
        device=settings.device,
        workspace_gib=arguments.workspace or (config.workspace_gib if config is not None else None),
        compute_capabilities=capabilities,
        force=arguments.force,
    )
    reports = generate(request, lambda line: print(line, file=sys.stderr, flush=True))
    failed = [report.network for report in reports if report.outcome == FAILED]
    counts = collections.Counter(report.outcome for report in reports)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"tensorrt: {model.name}, {settings.model_opt}, {precision}: {summary}, in {reports[0].plan.parent}")
    if failed:
        print(f"FAILED: {', '.join(failed)}; the other plans are kept: repeat the command for what is missing")
    plans = [dataclasses.asdict(report) for report in reports]
    return Outcome(passed=not failed, result={"engine": ENTRY.name, "precision": precision, "plans": plans})


def asked_sizes(asked: str | None, own: dict[str, int], *, source: str = "--batch-size") -> dict[str, int]:
    """Images per network: `8` for all of them, or `unet=8,vae=8,clip1=64`, where the others keep their `own`.

    Raises:
        UsageError: it is neither.
    """
    sizes = dict(own)
    for part in asked.split(",") if asked is not None else ():
        name, equals, number = part.rpartition("=")
        networks = [_ALIASES.get(name.strip(), name.strip())] if equals else list(NETWORKS)
        if not number.strip().isdecimal() or int(number) < 1 or not set(networks) <= set(NETWORKS):
            raise UsageError(
                "this is not a batch size",
                got=repr(asked),
                expected=f"a number of images, 1 or more, or NETWORK=N,... with {', '.join(NETWORKS)}",
                source=source,
            )
        sizes |= dict.fromkeys(networks, int(number))
    return sizes


def _capabilities(asked: str | None) -> tuple[str, ...]:
    found = tuple(part.strip() for part in asked.split(",")) if asked else ()
    if not all(re.fullmatch(r"\d+\.\d", part) for part in found):
        raise UsageError(
            "this is not a compute capability",
            got=repr(asked),
            expected="numbers like 8.9, separated by commas",
            source="--compute-capability",
        )
    return found
