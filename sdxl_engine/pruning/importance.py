"""How much the deep UNet's outputs change when layers are skipped, measured on calibration prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.models.unet_split import DeepUnet
from sdxl_engine.pruning.layers import without
from sdxl_engine.pruning.loss import output_loss
from sdxl_engine.pruning.states import autocast

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from sdxl_engine.pruning.layers import Layer
    from sdxl_engine.pruning.states import States

BATCH = 32
"""States at a time, two rows each."""


class Importance:
    """Measures `output_loss` of a UNet without some layers against the whole one.

    What a layer is worth depends on which others are left, so nothing is added up from single layers: each set that is
    asked for is run.

    Args:
        unet: The full UNet, on its device.
        states: What it is asked.
        rows: Which of the states.
    """

    def __init__(self, unet: Any, states: States, rows: Sequence[int]) -> None:
        self._unet = unet
        self._rows = torch.split(torch.tensor(list(rows), device=states.samples.device), BATCH)
        self._states = states
        self._expected = [self._outputs(rows) for rows in self._rows]

    def loss(self, dropped: Collection[Layer]) -> float:
        """The mean over the states' batches of `output_loss` without some layers."""
        with without(self._unet, dropped):
            found = [
                float(output_loss(self._outputs(rows), expected)) * len(rows)
                for rows, expected in zip(self._rows, self._expected, strict=True)
            ]
        return sum(found) / sum(len(rows) for rows in self._rows)

    @torch.no_grad()
    def _outputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        with autocast(rows.device):
            outputs: tuple[Tensor, ...] = DeepUnet(self._unet)(*self._states.inputs(rows))
        return outputs


def spread(prompts: int, timesteps: int, steps: int) -> list[int]:
    """Rows of states: of each prompt so many timesteps, spread evenly over its steps, the first and last with them."""
    chosen = [round(number * (steps - 1) / max(1, timesteps - 1)) for number in range(timesteps)]
    return [prompt * steps + step for prompt in range(prompts) for step in dict.fromkeys(chosen)]
