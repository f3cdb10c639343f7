"""Layers that compute as hardware with 8-bit numbers does, and that torch's ONNX exporter writes with Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""What each precision's levels are stored in. fp8 is E4M3: 4 bits of exponent, 3 of mantissa, largest value 448."""


@dataclass(frozen=True)
class Amax:
    """The largest magnitudes that a layer's numbers are given levels for; what is larger is clipped.

    Args:
        input: () float32, of the input, over all its elements.
        weight: (C,) float32, of the weights, for each output channel; or () for all of them.
    """

    input: Tensor
    weight: Tensor


def scale_of(amax: Tensor, levels: torch.dtype) -> Tensor:
    """What level 1 stands for where the largest level stands for `amax`; zeros get a scale all the same."""
    return (amax / _limits(levels).max).clamp(min=torch.finfo(torch.float32).tiny)


def _limits(levels: torch.dtype) -> torch.finfo | torch.iinfo:
    return torch.finfo(levels) if levels.is_floating_point else torch.iinfo(levels)


@torch.library.custom_op("sdxl_engine::rounded", mutates_args=())
def rounded(values: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """Values as levels give them back: rounded half to even, clipped to -128 and 127 in int8, to +-448 in fp8.

    Args:
        values: float32, of any shape.
        scale: () or (C,) float32, what level 1 stands for.
        zero: Zeros in the shape of `scale` and one of `LEVELS`: ONNX tells the kind of level by them.
        axis: That of C in `values`.
    """
    shape = [1] * values.dim()
    if scale.dim():
        shape[axis] = -1
    steps = scale.reshape(shape)
    limits = _limits(zero.dtype)
    levels = (values / steps).clamp_(limits.min, limits.max)
    if not zero.dtype.is_floating_point:
        levels.round_()
    return levels.to(zero.dtype).to(values.dtype) * steps


@rounded.register_fake
def _(values: Tensor, _scale: Tensor, _zero: Tensor, _axis: int) -> Tensor:
    return torch.empty_like(values)


def onnx_translation() -> dict[Any, Any]:
    """How `rounded` is written in ONNX, for `torch.onnx.export`'s `custom_translation_table`."""
    from onnxscript import opset18 as op

    def quantised(values: Any, scale: Any, zero: Any, axis: int) -> Any:
        return op.DequantizeLinear(op.QuantizeLinear(values, scale, zero, axis=axis), scale, zero, axis=axis)

    return {torch.ops.sdxl_engine.rounded.default: quantised}


class QuantisedLayer(nn.Module):
    """A linear layer or a 2-d convolution whose input and weights are rounded to 8-bit levels, then multiplied.

    One scale for the whole input, one for each output channel's weights or for all of them, zero points of 0. In ONNX:
    QuantizeLinear and DequantizeLinear on both, which an engine that has 8-bit kernels takes into its own.

    Args:
        layer: `nn.Linear` or `nn.Conv2d`; its weights are shared.
        amax: Of the layer.
        precision: One of `LEVELS`.
    """

    weight: Tensor
    bias: Tensor | None
    weight_scale: Tensor
    weight_zero: Tensor
    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, amax: Amax, precision: str) -> None:
        super().__init__()
        levels = LEVELS[precision]
        weight, bias = layer.weight.detach(), layer.bias
        self.convolution = (
            (layer.stride, layer.padding, layer.dilation, layer.groups) if isinstance(layer, nn.Conv2d) else None
        )
        # A linear layer's weights lie as the product takes them, so that no transposition stands behind their Q/DQ.
        self.register_buffer("weight", weight if self.convolution else weight.t().contiguous())
        self.register_buffer("bias", bias.detach() if bias is not None else None)
        for name, value in (("input", amax.input), ("weight", amax.weight)):
            self.register_buffer(f"{name}_scale", scale_of(value, levels))
            self.register_buffer(f"{name}_zero", torch.zeros_like(value, dtype=levels))
        self.axis = 0 if self.convolution else 1

    def forward(self, values: Tensor) -> Tensor:
        """As the layer's own: (..., C_in) to (..., C_out), or (B, C_in, H, W) to (B, C_out, H', W')."""
        taken: Tensor = rounded(values, self.input_scale, self.input_zero, 0)
        weight: Tensor = rounded(self.weight, self.weight_scale, self.weight_zero, self.axis)
        if self.convolution is not None:
            stride, padding, dilation, groups = self.convolution
            return torch.conv2d(taken, weight, self.bias, stride, padding, dilation, groups)
        product = taken @ weight
        return product if self.bias is None else product + self.bias


def replace_layers(module: nn.Module, layers: Mapping[str, Amax], precision: str) -> None:
    """Put a `QuantisedLayer` in the place of each layer named, in the module itself.

    Args:
        module: Holds the layers.
        layers: By name in the module, as `named_modules` gives it.
        precision: One of `LEVELS`.
    """
    for name, amax in layers.items():
        parent, _, own = name.rpartition(".")
        holder, layer = module.get_submodule(parent), module.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(holder, own, QuantisedLayer(layer, amax, precision))
