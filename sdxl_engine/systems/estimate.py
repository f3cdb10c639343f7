"""How much GPU memory the full-size networks need, and which batch fits: a model, not a measurement on a GPU.

needed = context + weights + the pipeline's buffers + the largest activations of any network

- Weights: the parameters of the five networks. The shallow UNet is counted on its own, since an engine that is built
  ahead holds it twice. With int8 and fp8 the UNets have one byte a parameter and the rest as with fp16.
- Activations: the most bytes alive at once while a network runs layer by layer, inputs and weights left out, attention
  without its score matrix. They are proportional to the batch and were counted on the modules of
  `sdxl_engine.models`, without computing anything (`python docs/measure_memory.py`). The decoder is taken in fp32
  whatever the precision: its activations leave the range of fp16, so engines may run it so.
- The networks run one after the other, so the largest activations count and not their sum.
- Context: an allowance for the CUDA context and the handles and kernels of its libraries.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from sdxl_engine.models.spec import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 2**20
PARAMETERS = MappingProxyType(
    {
        "clip1": 123_060_480,
        "clip2": 694_659_840,
        "unet": 2_567_463_684,
        "shallow_unet": 18_491_844,
        "vae": 49_490_199,
    }
)
ACTIVATIONS = MappingProxyType(
    {"clip1": 3.5078, "clip2": 4.3350, "unet": 325.0049, "shallow_unet": 200.0049, "vae": 1536.125}
)
"""MiB per image at two bytes a value; guidance's second row of every network but the decoder is in it."""

BUFFERS = 177 * MIB
"""Of the pipeline, per image: inputs, outputs and cached features in fp32."""

CONTEXT = 1024 * MIB
USABLE = 0.9
"""Share of a GPU's memory that may be planned with: allocators leave gaps, and a display takes some."""

BATCHES = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8))
"""Images per batch of the text encoders and UNets, and of the decoder: each pair needs more than the one before. The
largest is that of NVIDIA's submission to MLPerf Inference v4.0."""


def weight_bytes(precision: str) -> int:
    """Bytes of all weights."""
    wide = 4 if precision == "fp32" else 2
    narrow = 1 if precision in {"int8", "fp8"} else wide
    return sum(PARAMETERS[network] * (narrow if "unet" in network else wide) for network in NETWORKS)


def needed_bytes(precision: str, batch: Mapping[str, int]) -> int:
    """Bytes of GPU memory for a run of the full-size networks.

    Args:
        precision: Of the UNets.
        batch: Images per batch, by network.
    """
    wide = 2 if precision == "fp32" else 1
    activations = max(
        ACTIVATIONS[network] * MIB * batch[network] * (2 if network == "vae" else wide) for network in NETWORKS
    )
    return CONTEXT + weight_bytes(precision) + BUFFERS * max(batch.values()) + round(activations)


def usable_bytes(memory_bytes: int) -> int:
    """Bytes that may be planned with on a GPU with so much memory."""
    return int(memory_bytes * USABLE)


def fitting_batch(memory_bytes: int, precision: str) -> tuple[dict[str, int], bool]:
    """The largest batch of `BATCHES` that fits a GPU, and whether it does: where none fits it is the smallest."""
    pairs = [dict.fromkeys(NETWORKS, images) | {"vae": decoded} for images, decoded in BATCHES]
    fitting = [pair for pair in pairs if needed_bytes(precision, pair) <= usable_bytes(memory_bytes)]
    return (fitting[-1], True) if fitting else (pairs[0], False)
