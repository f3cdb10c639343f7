"""What is quantised and how, as data: which layers keep their precision, and what the ranges are measured on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One way to quantise the UNet; text encoders and decoder keep their precision, as in NVIDIA's v4.0 submission.

    Every layer's range is the largest magnitude seen over all steps of all calibration images (ModelOpt's algorithm
    `max`, percentile 1.0 of the steps).

    Args:
        precision: `int8`.
        kept: Regular expressions, each with its source: a layer whose name holds one of them keeps its precision.
        captions: How many are drawn to measure the ranges.
        seed: Of the choice of captions.
    """

    precision: str
    kept: tuple[tuple[str, str], ...]
    captions: int
    seed: int

    def keeps(self, layer: str) -> bool:
        """Whether the layer of this name keeps its precision."""
        return any(re.search(pattern, layer) for pattern, _ in self.kept)

    def to_json(self) -> dict[str, Any]:
        """For the key of what is built with it."""
        return asdict(self)


_EXAMPLE = "NVIDIA/Model-Optimizer, examples/diffusers/quantization, filter_func_default (2025-12-05)"
_V41 = "mlcommons/inference_results_v4.1, closed/NVIDIA/code/stable-diffusion-xl/modelopt"

INT8 = Recipe(
    precision="int8",
    kept=(
        (r"\b(time_emb_proj|time_embedding|add_embedding)\b", _EXAMPLE),
        (r"\b(conv_in|conv_out|conv_shortcut)\b", _EXAMPLE),
        (r"\bproj_out\b", "ModelOpt's default_disabled_quantizers, which its presets hold"),
        (r"\bup_blocks\.2\.resnets\.2\.(conv1|conv2)\b", _V41),
    ),
    captions=32,
    seed=1,
)
"""Weights by output channel, inputs by tensor; as many captions and steps as ModelOpt's INT8 script for SDXL has."""
