"""Which layers run in fp8, and with what scales: data and a choice, made from magnitudes that were measured.

Weights and inputs are E4M3 with one scale per tensor, an input's from the largest magnitude seen in all steps of the
calibration prompts (ModelOpt's algorithm `max`), as in NVIDIA's MLPerf Inference v4.1 submission. The decoder's layers
are those that submission runs in int8. Attention itself stays in fp16.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sdxl_engine.engines.cuda.kernels.fp8 import MOST
from sdxl_engine.export.recipes import FP8

if TYPE_CHECKING:
    from torch import Tensor

Scales = dict[str, dict[str, float]]
"""What inputs are divided by, by network and layer's name."""
Seen = dict[str, "dict[str, Tensor]"]
"""Largest magnitudes, (1,) fp32 each, by network and layer's name."""

_KEPT = {
    # proj_in and proj_out are few; the text's keys and values are computed once per batch; no fp8 kernel has a stride.
    "unet": r"\b(proj_in|proj_out|attn2\.to_k|downsamplers)\b",
    "vae": r"\b(conv_in|conv_out|conv_shortcut|mid_block|up_blocks\.3|up_blocks\.2\.resnets\.[12])\b",
}
_NETWORK = {"unet": "unet", "shallow_unet": "unet", "vae": "vae"}


def in_fp8(network: str, layer: str) -> bool:
    """Whether a layer runs in fp8.

    Args:
        network: `unet`, `shallow_unet` or `vae`.
        layer: Its name in diffusers' module.

    Source: mlcommons/inference_results_v4.1, closed/NVIDIA/code/stable-diffusion-xl/modelopt.
    """
    kind = _NETWORK[network]
    return not re.search(_KEPT[kind], layer) and not (kind == "unet" and FP8.keeps(layer))


def scales_of(seen: Seen) -> Scales:
    """The scales of the layers that run in fp8, each of which takes the largest magnitude to fp8's largest number."""
    return {
        network: {
            layer: max(float(magnitude), 1e-12) / MOST
            for layer, magnitude in magnitudes.items()
            if in_fp8(network, layer)
        }
        for network, magnitudes in seen.items()
    }
