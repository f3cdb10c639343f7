"""Layers that compute as int8 hardware does, and that torch's ONNX exporter writes with Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST, MOST = -128, 127


@dataclass(frozen=True)
class Amax:
    """The largest magnitudes that a layer's numbers are given levels for; what is larger is clipped.

    Args:
        input: () float32, of the input, over all its elements.
        weight: (C,) float32, of the weights, for each output channel.
    """

    input: Tensor
    weight: Tensor


def scale_of(amax: Tensor) -> Tensor:
    """What one level stands for: symmetric, 127 levels to each side. A channel of zeros gets a scale all the same."""
    return (amax / MOST).clamp(min=torch.finfo(torch.float32).tiny)


class Int8Layer(nn.Module):
    """A linear layer or a 2-d convolution whose input and weights are rounded to int8 levels, then multiplied.

    One scale for the whole input, one for each output channel's weights, zero points of 0. In ONNX: QuantizeLinear and
    DequantizeLinear on both, which an engine that has int8 kernels takes into its own.

    Args:
        layer: `nn.Linear` or `nn.Conv2d`; its weights are shared.
        amax: Of the layer.
    """

    weight: Tensor
    bias: Tensor | None
    weight_scale: Tensor
    zero_points: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, amax: Amax) -> None:
        super().__init__()
        weight, bias = layer.weight.detach(), layer.bias
        self.convolution = (
            (layer.stride, layer.padding, layer.dilation, layer.groups) if isinstance(layer, nn.Conv2d) else None
        )
        # A linear layer's weights lie as the product takes them, so that no transposition stands behind their Q/DQ.
        self.register_buffer("weight", weight if self.convolution else weight.t().contiguous())
        self.register_buffer("bias", bias.detach() if bias is not None else None)
        self.register_buffer("weight_scale", scale_of(amax.weight))
        self.register_buffer("zero_points", torch.zeros_like(amax.weight, dtype=torch.int32))
        self.input_scale = float(scale_of(amax.input))
        self.axis = 0 if self.convolution else 1

    def forward(self, values: Tensor) -> Tensor:
        """As the layer's own: (..., C_in) to (..., C_out), or (B, C_in, H, W) to (B, C_out, H', W')."""
        rounded = torch.fake_quantize_per_tensor_affine(values, self.input_scale, 0, LEAST, MOST)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_scale, self.zero_points, self.axis, LEAST, MOST
        )
        if self.convolution is not None:
            stride, padding, dilation, groups = self.convolution
            return torch.conv2d(rounded, weight, self.bias, stride, padding, dilation, groups)
        product = rounded @ weight
        return product if self.bias is None else product + self.bias


def replace_layers(module: nn.Module, layers: Mapping[str, Amax]) -> None:
    """Put an `Int8Layer` in the place of each layer named, in the module itself.

    Args:
        module: Holds the layers.
        layers: By name in the module, as `named_modules` gives it.
    """
    for name, amax in layers.items():
        parent, _, own = name.rpartition(".")
        holder, layer = module.get_submodule(parent), module.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(holder, own, Int8Layer(layer, amax))
