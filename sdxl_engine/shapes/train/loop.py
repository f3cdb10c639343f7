"""The training loop every stage shares: one captured step, a learning-rate schedule on the device, resumable state."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sdxl_engine.shapes.train.recipe import Stage

EAGER_STEPS = 3
"""Steps run before capture, so that lazy initialisation (cuBLAS, cuDNN, Adam's state) is not captured."""

LOOK_EVERY = 50
"""Steps between looks at the loss, which wait for the device, and at the clock."""


class Trainer:
    """Runs `loss()` backward and steps AdamW; on a GPU the whole step is one CUDA graph.

    Args:
        name: For the log and the checkpoint file.
        stage: Steps, rate and schedule.
        modules: What is trained.
        loss: Draws its own batch on the device and returns the loss, scalar; it must not synchronise with the host.
        work: Folder of checkpoints and `<name>.jsonl` logs.
        ema: Decay per step of an average of the weights; 0 keeps none.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        modules: Sequence[nn.Module],
        loss: Callable[[], Tensor],
        work: Path,
        ema: float = 0.0,
    ) -> None:
        self.name, self.stage, self.loss, self.work, self.ema = name, stage, loss, work, ema
        self.modules = nn.ModuleList(modules)
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self._on_gpu = self.device.type == "cuda"
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.rate,
            betas=(0.9, 0.99),
            weight_decay=stage.weight_decay,
            fused=self._on_gpu,
            capturable=self._on_gpu,
        )
        self.averages = [p.detach().clone() for p in self.parameters] if ema else []
        self.last_loss = torch.zeros((), device=self.device)
        self.step = 0

    def _advance(self) -> None:
        """One optimiser step; everything in it stays on the device."""
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        if self.averages:
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - self.ema)
        self.last_loss.lerp_(loss.detach(), 0.02)

    def _warmed(self) -> None:
        """One eager step on a side stream, as capture wants its warm-up."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._advance()
        torch.cuda.current_stream().wait_stream(side)

    def _captured(self) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph.replay

    def run(self, checkpoint_every_s: float = 120.0, stop_at: float | None = None) -> bool:
        """Train to the stage's last step, resuming from its checkpoint where there is one.

        Args:
            checkpoint_every_s: Seconds between checkpoints.
            stop_at: `time.monotonic()` after which to checkpoint and return.

        Returns:
            Whether the stage is complete.
        """
        self._resume()
        if self.step >= self.stage.steps:
            return True
        self.modules.train()
        advance: Callable[[], None] = self._warmed if self._on_gpu else self._advance
        began = last_log = last_save = time.monotonic()
        first = timed_from = self.step
        while self.step < self.stage.steps:
            self.rate.fill_(self.stage.rate_at(self.step))
            if self._on_gpu and self.step - first == EAGER_STEPS:
                torch.cuda.synchronize()
                advance = self._captured()
                began, timed_from = time.monotonic(), self.step
            advance()
            self.step += 1
            if self.step % LOOK_EVERY and self.step < self.stage.steps:
                continue
            loss = float(self.last_loss)  # waits for the device: the clock below is honest
            now = time.monotonic()
            if now - last_log > 10 or self.step == self.stage.steps:
                last_log = now
                self._log(loss, (now - began) / (self.step - timed_from))
            if now - last_save > checkpoint_every_s:
                last_save = now
                self._save()
            if stop_at is not None and now > stop_at:
                break
        self._save()
        return self.step >= self.stage.steps

    def use_averages(self) -> None:
        """Put the averaged weights into the modules."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)

    @property
    def checkpoint(self) -> Path:
        """The stage's checkpoint file."""
        return self.work / f"{self.name}.pt"

    def _log(self, loss: float, seconds: float) -> None:
        record = {"stage": self.name, "step": self.step, "loss": round(loss, 5), "ms_per_step": round(1e3 * seconds, 2)}
        line = json.dumps(record)
        print(line, flush=True)
        with (self.work / f"{self.name}.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def _save(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "loss": self.last_loss,
            "random": torch.cuda.get_rng_state(self.device) if self._on_gpu else torch.get_rng_state(),
        }
        with written_whole(self.checkpoint) as aside:
            torch.save(state, aside)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.copy_(saved)
        self.last_loss.copy_(state["loss"])
        # With it, a training that was stopped goes on with the batches that it would have had.
        if self._on_gpu:
            torch.cuda.set_rng_state(state["random"].cpu(), self.device)
        else:
            torch.set_rng_state(state["random"])
        self.step = state["step"]
