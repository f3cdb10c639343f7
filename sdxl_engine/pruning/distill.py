"""Train a pruned UNet after the full one: the same outputs on the same inputs, along the full one's trajectories.

The outermost level (`conv_in`, the embeddings, `down_blocks.0`, `up_blocks.2` and the head) is not trained: it has no
transformer layer to lose, its first two features are cached, and the shallow steps run it. So those features stay the
full UNet's to the last bit, the shallow network is the same whichever UNet it is taken from, and what there is to
learn is one tensor, `up.1.sample`, of which the noise is a fixed function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdxl_engine.errors import UsageError
from sdxl_engine.files import read_json, write_json
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.unet_split import DeepUnet
from sdxl_engine.pruning.importance import spread
from sdxl_engine.pruning.loss import output_loss
from sdxl_engine.pruning.states import autocast
from sdxl_engine.shapes.train.loop import Trainer
from sdxl_engine.shapes.train.recipe import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.pruning.states import States

NAME = "distill"
IDENTITY = "distill.json"
CHECK_BATCH = 32
CHECK_TIMESTEPS = 5
"""Of each held-out prompt's steps, how many the loss is measured on."""


@dataclass(frozen=True, kw_only=True)
class Cosine(Stage):
    """A stage whose rate falls to zero along half a cosine after the warm-up; `decay` is not looked at.

    Source of the schedule: Loshchilov and Hutter 2017, SGDR (arXiv:1608.03983), without restarts.
    """

    decay: float = 1.0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup)
        return self.rate * rising * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def trained(unet: Any) -> list[nn.Module]:
    """The parts of a UNet between the cached features of its outermost level, which are the ones to train."""
    return [*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]


class Distillation:
    """One training of a pruned UNet.

    Args:
        full: The full UNet, on the device to train on.
        small: The pruned one, in float32 there; trained in place.
        states: What both are asked. The last `held_out` prompts' states are not trained on.
        stage: Steps, states per step (two rows each), learning rate.
        work: Folder of the checkpoint and the log.
        held_out: Prompts to measure the loss on.
    """

    def __init__(self, full: Any, small: Any, states: States, stage: Stage, work: Path, held_out: int) -> None:
        self._teacher, self._student, self._states = DeepUnet(full), DeepUnet(small), states
        full.requires_grad_(requires_grad=False)
        small.requires_grad_(requires_grad=False)
        for part in trained(small):
            part.requires_grad_(requires_grad=True)
        self._split = len(states) - held_out * STEPS
        if self._split <= 0:
            raise UsageError(
                "there are too few prompts to train on",
                got=len(states) // STEPS,
                expected=f"more than the {held_out} that the loss is measured on",
                source="--prompts",
            )
        self._batch = stage.batch
        work.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(NAME, stage, [small], self._loss, work)

    def _loss(self) -> Tensor:
        rows = torch.randint(self._split, (self._batch,), device=self._states.samples.device)
        return self._of(rows)

    def _of(self, rows: Tensor) -> Tensor:
        inputs = self._states.inputs(rows)
        with autocast(rows.device):
            with torch.no_grad():
                expected = self._teacher(*inputs)
            outputs = self._student(*inputs)
        return output_loss(outputs, expected)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """`output_loss` on the states of the prompts that are not trained on, the mean over batches."""
        prompts = (len(self._states) - self._split) // STEPS
        held_out = torch.tensor(spread(prompts, CHECK_TIMESTEPS, STEPS), device=self._states.samples.device)
        rows = torch.split(self._split + held_out, CHECK_BATCH)
        return sum(float(self._of(each)) * len(each) for each in rows) / sum(map(len, rows))

    def run(self, stop_at: float | None = None) -> bool:
        """Train to the last step, going on from the checkpoint where there is one; whether it is complete."""
        return self.trainer.run(stop_at=stop_at)


def begin(work: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Prepare the folder of checkpoints: go on with what is there, or clear it.

    Args:
        work: The folder.
        identity: What makes two trainings the same one; JSON.
        resume: Whether to go on; where there is nothing to go on with, the training begins.

    Raises:
        UsageError: the checkpoint there is of another training.
    """
    path, checkpoint = work / IDENTITY, work / f"{NAME}.pt"
    if not resume:
        checkpoint.unlink(missing_ok=True)
    elif checkpoint.exists():
        found = read_json(path, "what the training was begun with")
        differing = [f"{name}: {found.get(name)}" for name in identity if found.get(name) != identity[name]]
        if differing:
            raise UsageError(
                "the checkpoint is of another training",
                got="; ".join(differing),
                expected="; ".join(
                    f"{line.partition(':')[0]}: {identity[line.partition(':')[0]]}" for line in differing
                ),
                source=checkpoint,
                fix="leave out --resume, which begins anew, or name another --work",
            )
    write_json(path, dict(identity))
