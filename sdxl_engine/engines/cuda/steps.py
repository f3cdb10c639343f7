"""The denoising steps of one batch, with what they share computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from sdxl_engine.engines.base import Buffers
    from sdxl_engine.engines.cuda.unet import DeepUnet, Kept, OuterLevel


class BatchSteps:
    """See `sdxl_engine.engines.base.Steps`.

    Args:
        deep: Runs deep steps.
        shallow: Runs shallow ones: the deep one's own outermost level, or that of another UNet.
        buffers: The UNets' by name.
        timesteps: Of all steps.
    """

    def __init__(self, deep: DeepUnet, shallow: OuterLevel, buffers: Buffers, timesteps: Sequence[float]) -> None:
        self._deep, self._shallow, self._buffers = deep, shallow, buffers
        self._timesteps = torch.tensor(timesteps, dtype=torch.float32, device=buffers["sample"].device)
        self._context: list[Tensor] = []
        self._shifts: dict[str, list[tuple[Tensor, ...]]] = {}
        self._kept: Kept | None = None

    @torch.inference_mode()
    def begin(self) -> None:
        """See `Steps.begin`."""
        sizes = self._buffers["text_embeds"], self._buffers["time_ids"]
        self._context = self._deep.context(self._buffers["encoder_hidden_states"])
        self._shifts = {
            "deep": self._deep.conditioning(self._timesteps, *sizes),
            "outer": self._deep.outer.conditioning(self._timesteps, *sizes),
        }
        if self._shallow is not self._deep.outer:
            self._shifts["shallow"] = self._shallow.conditioning(self._timesteps, *sizes)

    @torch.inference_mode()
    def deep(self, step: int) -> None:
        """See `Steps.deep`."""
        outer = self._deep.outer
        entered, first, second, entering = self._deep(
            self._buffers["sample"], self._context, self._shifts["deep"][step]
        )
        kept = outer.keep(entering, second, first)
        self._buffers["latent"].copy_(outer.leave(kept, entered, self._shifts["outer"][step]))
        self._kept = kept if self._shallow is outer else self._shallow.keep(entering, second, first)

    @torch.inference_mode()
    def shallow(self, step: int) -> None:
        """See `Steps.shallow`."""
        assert self._kept is not None
        shifts = self._shifts["outer" if self._shallow is self._deep.outer else "shallow"][step]
        entered = self._shallow.enter(self._buffers["sample"])
        self._buffers["latent"].copy_(self._shallow.leave(self._kept, entered, shifts))

    def end(self) -> None:
        """See `Steps.end`."""
        self._context, self._shifts, self._kept = [], {}, None
