"""`sdxl-engine distill`: train a pruned UNet after the full one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.commands import Outcome
from sdxl_engine.errors import UsageError
from sdxl_engine.prune_command import device_of, prunable

if TYPE_CHECKING:
    import argparse

    from sdxl_engine.settings import RunSettings


def add_distill(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser("distill", parents=[shared], help="train a pruned UNet after the full one")
    parser.add_argument("--pruned", type=Path, required=True, metavar="DIR", help="from sdxl-engine prune")
    parser.add_argument("--steps", type=int, default=3000, help="of the optimiser (default: 3000)")
    parser.add_argument("--batch", type=int, default=64, help="states per step, two rows each (default: 64)")
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate (default: 5e-4)")
    parser.add_argument("--prompts", type=int, default=2048, help="whose trajectories are trained on (default: 2048)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts, initial latents and batches (default: 0)")
    parser.add_argument("--minutes", type=float, help="checkpoint and stop after this long; --resume goes on")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, where there is one")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="of checkpoint and log (default: distill in the build folder)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the trained UNet goes")


def distill(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Train and write the UNet; the outcome is not passed where `--minutes` stopped it."""
    for name in ("steps", "batch", "prompts"):
        if getattr(arguments, name) < 1:
            raise UsageError(
                "not a number of them", got=getattr(arguments, name), expected="1 or more", source=f"--{name}"
            )
    model, device = prunable(settings, arguments.output), device_of(settings)
    from sdxl_engine.pruning.prompts import training_prompts
    from sdxl_engine.pruning.recover import RecoverRequest, recover

    request = RecoverRequest(
        checkpoint=model.checkpoint,
        pruned=arguments.pruned,
        prompts=tuple(training_prompts(model, settings.captions, arguments.prompts, arguments.seed + 1)),
        work=arguments.work or settings.build_dir / "distill",
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        seed=arguments.seed,
        device=device,
        resume=arguments.resume,
        minutes=arguments.minutes,
    )
    report = recover(request, arguments.output)
    if report is None:
        print(f"stopped after {arguments.minutes:g} minutes: the same command with --resume goes on")
        return Outcome(passed=False)
    told = report["distillation"]
    print(
        f"loss on held-out prompts {told['loss_before']:.4f} before, {told['loss_after']:.4f} after; "
        f"in {arguments.output}"
    )
    return Outcome(result=report)
