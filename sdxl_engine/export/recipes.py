"""What is quantised and how, as data: which layers keep their precision, and what the ranges are measured on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.export.quantised_layers import Amax

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sdxl_engine.export.statistics import LayerStatistics


@dataclass(frozen=True)
class Recipe:
    """One way to quantise the UNet; text encoders and decoder keep their precision, as in NVIDIA's v4.0 submission.

    An input has one range for the whole tensor. A linear layer's is the largest magnitude over all steps of all
    calibration images (ModelOpt's algorithm `max`); a convolution's is what `collect` and `percentile` make of its
    largest magnitudes at each step, as in ModelOpt's SDXL example, whose calibrator is for convolutions alone.

    Args:
        precision: `int8` or `fp8`.
        opset: Of the ONNX files; QuantizeLinear takes 8-bit floating-point numbers from 19 on.
        weights_by_channel: Whether weights have a range for each output channel, or one for the whole tensor.
        kept: Regular expressions, each with its source: a layer whose name holds one of them keeps its precision.
        captions: How many are drawn to measure the ranges.
        seed: Of the choice of captions of `shapes`.
        collect: How a convolution's range comes from those of its steps: `max`, the largest; `min-max`, the least;
            `min-mean`, the least of the means over batches of captions. The least clips at all other steps.
        percentile: The part of the steps that are looked at, from the first one on.
        alpha: Of SmoothQuant (see `smoothing.py`); None leaves the layers as they are.
    """

    precision: str
    opset: int
    weights_by_channel: bool
    kept: tuple[tuple[str, str], ...]
    captions: int
    seed: int
    collect: str = "max"
    percentile: float = 1.0
    alpha: float | None = None

    def keeps(self, layer: str) -> bool:
        """Whether the layer of this name keeps its precision."""
        return any(re.search(pattern, layer) for pattern, _ in self.kept)

    def layers(self, statistics: Mapping[str, LayerStatistics]) -> dict[str, Amax]:
        """The ranges of the layers that are quantised, as they are quantised.

        Args:
            statistics: Of every layer.
        """
        return {
            name: Amax(
                seen.channels.max() if seen.steps is None else self._of_steps(seen.steps),
                seen.weight if self.weights_by_channel else seen.weight.max(),
            )
            for name, seen in statistics.items()
            if not self.keeps(name)
        }

    def _of_steps(self, steps: Tensor) -> Tensor:
        """() float32, from `LayerStatistics.steps`."""
        largest, mean = steps[:, : int(steps.shape[1] * self.percentile)].unbind()
        collected: dict[str, Tensor] = {"max": largest.max(), "min-max": largest.min(), "min-mean": mean.min()}
        return collected[self.collect]

    def to_json(self) -> dict[str, Any]:
        """For the key of what is built with it."""
        return asdict(self)


_EXAMPLE = "NVIDIA/Model-Optimizer, examples/diffusers/quantization, filter_func_default (2025-12-05)"
_V41 = "mlcommons/inference_results_v4.1, closed/NVIDIA/code/stable-diffusion-xl/modelopt"

_KEPT = (
    (r"\b(time_emb_proj|time_embedding|add_embedding)\b", _EXAMPLE),
    (r"\b(conv_in|conv_out|conv_shortcut)\b", _EXAMPLE),
    (r"\bup_blocks\.2\.resnets\.2\.(conv1|conv2)\b", _V41),
)

INT8 = Recipe(
    precision="int8",
    opset=18,
    weights_by_channel=True,
    kept=(*_KEPT, (r"\bproj_out\b", "ModelOpt's default_disabled_quantizers, which its presets hold")),
    captions=32,
    seed=1,
)
"""Weights by output channel, inputs by tensor; as many captions and steps as ModelOpt's INT8 script for SDXL has."""

FP8 = Recipe(precision="fp8", opset=19, weights_by_channel=False, kept=_KEPT, captions=32, seed=1)
"""Weights and inputs by tensor, and the layers that NVIDIA's v4.1 FP8 UNet keeps, whose configuration is no preset.

That UNet has both products of attention in FP8 too; here they stay fp32. It is calibrated on 500 captions.
"""

RECIPES = {recipe.precision: recipe for recipe in (INT8, FP8)}
