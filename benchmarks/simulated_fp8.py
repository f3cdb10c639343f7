"""The FP8 recipe as it is written down, simulated: what engine `cuda` in fp8 is compared with for its errors.

Every linear layer and convolution of the UNet but those that the recipe keeps rounds its weight and its input to E4M3,
one scale for a tensor, and computes in the module's own dtype. Text encoders and decoder stay as they are, and so do
the products of attention, which NVIDIA's v4.1 UNet has in FP8 too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST
from sdxl_engine.export.recipes import FP8

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def rounded(values: Tensor, magnitude: Tensor) -> Tensor:
    """To the E4M3 numbers times `magnitude / 448`, in the dtype of `values`; what lies beyond becomes the largest."""
    scale = magnitude.float().clamp(min=1e-12) / MOST
    return ((values.float() / scale).clamp(-MOST, MOST).to(E4M3).float() * scale).to(values.dtype)


def largest(values: Tensor) -> Tensor:
    """Magnitude, () fp32."""
    return values.abs().amax().float()


@torch.no_grad()
def simulate(unet: nn.Module, draw: Callable[[], object]) -> int:
    """Calibrate, then round in place; how many layers.

    Args:
        unet: diffusers' module. Its weights are changed and its layers get hooks, which stay.
        draw: Runs it on all that the scales are to be taken from.
    """
    layers = {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not FP8.keeps(name)
    }
    seen: dict[str, Tensor] = {}

    def watch(name: str, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        magnitude = largest(inputs[0])
        seen[name] = torch.maximum(seen.get(name, magnitude), magnitude)

    watches = [layer.register_forward_pre_hook(partial(watch, name)) for name, layer in layers.items()]
    draw()
    for each in watches:
        each.remove()
    for name, layer in layers.items():
        layer.weight.copy_(rounded(layer.weight, largest(layer.weight)))
        layer.register_forward_pre_hook(lambda _layer, inputs, most=seen[name]: (rounded(inputs[0], most), *inputs[1:]))
    return len(layers)
