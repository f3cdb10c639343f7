"""From a pruned UNet on disk to a trained one: load, walk, distil, write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json
from sdxl_engine.models import pruned
from sdxl_engine.models.load import load_networks, load_unet
from sdxl_engine.pruning.distill import Cosine, Distillation, begin
from sdxl_engine.pruning.prune import save, weights_sha256
from sdxl_engine.pruning.states import walk

if TYPE_CHECKING:
    from pathlib import Path

HELD_OUT_PROMPTS = 16
"""At most; of few prompts, a quarter."""


@dataclass(frozen=True, kw_only=True)
class RecoverRequest:
    """What to train, and how.

    Args:
        checkpoint: A diffusers-layout folder: the full UNet and what gives it its inputs.
        pruned: Folder of the pruned UNet, from `prune`.
        prompts: Whose trajectories to train on; the last few of them measure the loss instead.
        work: Folder of the checkpoint and the log.
        steps: Optimiser steps.
        batch: States per step, two rows each.
        rate: Highest learning rate.
        warmup: Steps until it is reached.
        seed: Of initial latents and batches.
        device: Where to train.
        resume: Go on from the checkpoint in `work`, where there is one.
        minutes: Checkpoint and stop after this long.
    """

    checkpoint: Path
    pruned: Path
    prompts: tuple[str, ...]
    work: Path
    steps: int = 3000
    batch: int = 64
    rate: float = 5e-4
    warmup: int = 100
    seed: int = 0
    device: torch.device | str = "cpu"
    resume: bool = False
    minutes: float | None = None


def recover(request: RecoverRequest, output: Path) -> dict[str, Any] | None:
    """Train the pruned UNet and write it (fp16, diffusers layout) with its report.

    Returns:
        The report of `prune` and what the training did; None where it was stopped by `minutes`.

    Raises:
        UsageError: the checkpoint to go on from is of another training, or there are too few prompts.
        AssetError: a part does not load, or the pruned UNet is not this checkpoint's.
    """
    stop_at = None if request.minutes is None else time.monotonic() + 60 * request.minutes
    report: dict[str, Any] = read_json(request.pruned / pruned.REPORT, "the report of the pruning")
    full_sha256 = weights_sha256(request.checkpoint / pruned.FULL)
    if report["full_unet_sha256"] != full_sha256:
        raise AssetError(
            "the UNet was pruned from another checkpoint",
            got=report["full_unet_sha256"],
            expected=full_sha256,
            source=request.pruned / pruned.REPORT,
            fix="prune this checkpoint",
        )
    told: dict[str, Any] = {
        "steps": request.steps,
        "batch": request.batch,
        "rate": request.rate,
        "warmup": request.warmup,
        "prompts": len(request.prompts),
        "seed": request.seed,
    }
    start = {"full": full_sha256, "pruned": weights_sha256(request.pruned), "first_prompt": request.prompts[0]}
    begin(request.work, told | start, resume=request.resume)
    networks = {name: each.to(request.device) for name, each in load_networks(request.checkpoint).items()}
    full: Any = networks["unet"].unet
    small = load_unet(request.pruned).to(request.device)
    states = walk(networks, request.checkpoint, list(request.prompts), request.seed)
    stage = Cosine(steps=request.steps, batch=request.batch, rate=request.rate, warmup=request.warmup)
    held_out = max(1, min(HELD_OUT_PROMPTS, len(request.prompts) // 4))
    distillation = Distillation(full, small, states, stage, request.work, held_out)
    before = distillation.held_out_loss()
    torch.manual_seed(request.seed)
    if not distillation.run(stop_at):
        return None
    told |= {
        "held_out_prompts": held_out,
        "loss_before": before,
        "loss_after": distillation.held_out_loss(),
        "device": torch.cuda.get_device_name(request.device) if states.samples.is_cuda else "cpu",
        "torch": torch.__version__,
    }
    report |= {"distillation": told}
    save(small.to(device="cpu", memory_format=torch.contiguous_format), report, output)
    return report
