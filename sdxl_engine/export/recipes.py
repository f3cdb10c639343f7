"""What is quantised and how, as data: which layers keep their precision, and what the ranges are measured on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.export.quantised_layers import Amax


@dataclass(frozen=True)
class Recipe:
    """One way to quantise the UNet; text encoders and decoder keep their precision, as in NVIDIA's v4.0 submission.

    Every layer's range is the largest magnitude seen over all steps of all calibration images (ModelOpt's algorithm
    `max`, percentile 1.0 of the steps); an input has one for the whole tensor.

    Args:
        precision: `int8` or `fp8`.
        opset: Of the ONNX files; QuantizeLinear takes 8-bit floating-point numbers from 19 on.
        weights_by_channel: Whether weights have a range for each output channel, or one for the whole tensor.
        kept: Regular expressions, each with its source: a layer whose name holds one of them keeps its precision.
        captions: How many are drawn to measure the ranges.
        seed: Of the choice of captions.
    """

    precision: str
    opset: int
    weights_by_channel: bool
    kept: tuple[tuple[str, str], ...]
    captions: int
    seed: int

    def keeps(self, layer: str) -> bool:
        """Whether the layer of this name keeps its precision."""
        return any(re.search(pattern, layer) for pattern, _ in self.kept)

    def layers(self, ranges: Mapping[str, Amax]) -> dict[str, Amax]:
        """The ranges of the layers that are quantised, as they are quantised.

        Args:
            ranges: Of every layer, with its weights' by output channel.
        """
        return {
            name: amax if self.weights_by_channel else replace(amax, weight=amax.weight.max())
            for name, amax in ranges.items()
            if not self.keeps(name)
        }

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
