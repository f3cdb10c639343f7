"""The spatial transformer of the UNet (diffusers' Transformer2DModel with BasicTransformerBlocks).

The residual stream leaves out the biases of the layers that add to it: `x @ W.T` is accumulated in place by the matrix
product itself. What is left out is a constant per channel, so each LayerNorm adds the sum of it so far, and the last
projection has it in its bias; both are exact by algebra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from torch.nn.attention import SDPBackend, sdpa_kernel

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import geglu, layer_norm
from sdxl_engine.engines.cuda.layers import Linear, Norm, Pending, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""In the order of their speed on Hopper; the first that has the head's width runs."""

Context = tuple["Tensor", "Tensor"]
"""Keys and values of the text for one layer: (B, heads, 77, D) each."""


def heads_first(x: Tensor, batch: int, heads: int) -> Tensor:
    """(B*T, heads*D), rows may be strided, to a view (B, heads, T, D)."""
    return x.unflatten(0, (batch, -1)).unflatten(2, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v: (B, heads, T, D) and (B, heads, S, D) twice to (B*T, heads*D)."""
    with sdpa_kernel(_KERNELS, set_priority=True):
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


class Layer:
    """One transformer layer: self-attention, attention to the text, feed-forward.

    Args:
        module: Its weights.
        entering: (C,) fp32: what the residual stream leaves out when it comes in.
    """

    def __init__(self, module: Any, entering: Tensor) -> None:
        own, text = module.attn1, module.attn2
        self._heads = own.heads
        self._norm1, self._norm2, self._norm3 = (Norm.of(module.norm1), Norm.of(module.norm2), Norm.of(module.norm3))
        self._qkv = Linear(torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight]))
        self._own_out = Linear(own.to_out[0].weight)
        self._query = Linear(text.to_q.weight)
        self._context = Linear(torch.cat([text.to_k.weight, text.to_v.weight]))
        self._text_out = Linear(text.to_out[0].weight)
        widen, narrow = module.ff.net[0].proj, module.ff.net[2]
        self._widen, self._narrow = Linear(widen.weight, widen.bias), Linear(narrow.weight)
        self._shift1 = entering
        self._shift2 = self._shift1 + own.to_out[0].bias.float()
        self._shift3 = self._shift2 + text.to_out[0].bias.float()
        self.leaving = self._shift3 + narrow.bias.float()

    def context(self, text: Tensor) -> Context:
        """Keys and values of (B, 77, W) fp16."""
        key, value = self._context(text.flatten(0, 1)).chunk(2, dim=1)
        return heads_first(key, len(text), self._heads), heads_first(value, len(text), self._heads)

    def __call__(self, stream: Tensor, context: Context) -> None:
        """Add to the residual stream, (B*T, C) fp16, in place."""
        batch = len(context[0])
        qkv = self._qkv(layer_norm(stream, self._norm1, self._shift1))
        query, key, value = (heads_first(part, batch, self._heads) for part in qkv.chunk(3, dim=1))
        self._own_out.add_to(stream, attend(query, key, value))
        query = self._query(layer_norm(stream, self._norm2, self._shift2))
        self._text_out.add_to(stream, attend(heads_first(query, batch, self._heads), *context))
        wide = self._widen(layer_norm(stream, self._norm3, self._shift3))
        self._narrow.add_to(stream, geglu(wide))


class Transformer:
    """GroupNorm, projection, layers, projection, residual."""

    def __init__(self, module: Any) -> None:
        self._norm = Norm.of(module.norm)
        self._proj_in = Linear(_matrix(module.proj_in), module.proj_in.bias)
        shift = torch.zeros_like(module.proj_in.bias, dtype=torch.float32)
        self._layers: list[Layer] = []
        for block in module.transformer_blocks:
            self._layers.append(Layer(block, shift))
            shift = self._layers[-1].leaving
        weight, bias = _matrix(module.proj_out), module.proj_out.bias
        self._proj_out = Linear(weight, (bias.double() + weight.double() @ shift.double()).to(bias.dtype))

    def context(self, text: Tensor) -> list[Context]:
        """Keys and values of the text, (B, 77, W) fp16, for every layer."""
        return [layer.context(text) for layer in self._layers]

    def __call__(self, x: Pending, context: Iterator[Context]) -> Tensor:
        """(B, H, W, C) fp16 to the same; takes its layers' share of `context`."""
        normed, total = group_norm(x, self._norm, silu=False)
        stream = self._proj_in(rows(normed))
        for layer in self._layers:
            layer(stream, next(context))
        self._proj_out.add_to(rows(total), stream)
        return total


def _matrix(module: Any) -> Tensor:
    """A projection's weight, which is a 1x1 convolution's in some checkpoints."""
    weight: Tensor = module.weight.flatten(1)
    return weight
