"""`sdxl-engine prune`: drop transformer layers of a checkpoint's UNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.commands import Outcome
from sdxl_engine.errors import UsageError
from sdxl_engine.models import full_size
from sdxl_engine.models.source import model_of

if TYPE_CHECKING:
    import argparse

    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.settings import RunSettings

PROMPTS = 4


def add_prune(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser(
        "prune", parents=[shared], help="drop transformer layers of the UNet, by measured importance"
    )
    parser.add_argument("--share", type=float, help="of the deep step's FLOPs, what may be left (default: 0.68)")
    parser.add_argument(
        "--prompts", type=int, default=PROMPTS, help=f"how many to measure importance on (default: {PROMPTS})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of prompts and initial latents (default: 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the pruned UNet goes")


def prune(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Write the pruned UNet and its report; what it is worth before training is printed."""
    model, device = prunable(settings, arguments.output), device_of(settings)
    from sdxl_engine.pruning.prompts import training_prompts
    from sdxl_engine.pruning.prune import SHARE, PruneRequest
    from sdxl_engine.pruning.prune import prune as run

    request = PruneRequest(
        checkpoint=model.checkpoint,
        prompts=tuple(training_prompts(model, settings.captions, arguments.prompts, arguments.seed)),
        share=SHARE if arguments.share is None else arguments.share,
        seed=arguments.seed,
        device=device,
    )
    report = run(request, arguments.output, lambda line: print(line, flush=True))
    print(
        f"{len(report['dropped'])} layers dropped, {report['share']:.4f} of the deep step's FLOPs and "
        f"{report['parameters']['pruned']} of {report['parameters']['full']} parameters left, "
        f"loss {report['loss']:.4f}; in {arguments.output}, to be trained by sdxl-engine distill"
    )
    return Outcome(result=report)


def prunable(settings: RunSettings, output: Path) -> ModelSource:
    """The model, its files checked, where its UNet can be pruned and the output be written.

    Raises:
        UsageError: its weights are random, or there is something at the output already.
        AssetError: a file of the model's is damaged.
    """
    model = model_of(settings)
    if model.name == full_size.NAME:
        raise UsageError(
            "random weights have no importance", got=model.name, expected="a trained checkpoint", source="--model"
        )
    if output.exists() and any(output.iterdir()):
        raise UsageError("the output folder is not empty", got=output, expected="a new folder", source="--output")
    model.verify()
    return model


def device_of(settings: RunSettings) -> str:
    """Where to run the networks: what was asked for, else a GPU where torch sees one.

    Raises:
        UnavailableError: torch is not installed, or the GPU asked for is not here.
    """
    from sdxl_engine.engines.registry import resolve_engine

    return resolve_engine("torch").device(settings.device, source="--device")
