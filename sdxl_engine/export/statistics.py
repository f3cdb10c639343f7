"""What a layer's numbers were while calibration captions were drawn, from which recipes take ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LayerStatistics:
    """Largest magnitudes of one linear layer or convolution.

    ModelOpt's SDXL example looks at a linear layer's input by channel, for SmoothQuant, and at a convolution's by
    denoising step.

    Args:
        channels: (C_in,) float32, of the input, over all steps of all captions.
        steps: (2, N) float32, of a convolution's input at each of N denoising steps: over all batches of captions, and
            the mean of the batches' own. None of a linear layer.
        weight: (C_out,) float32, of the weights, for each output channel.
    """

    channels: Tensor
    steps: Tensor | None
    weight: Tensor
