"""The spatial transformer of the UNet (diffusers' Transformer2DModel with BasicTransformerBlocks).

The residual stream leaves out the biases of the layers that add to it: `x @ W.T` is accumulated in place by the matrix
product itself. What is left out is a constant per channel, so each LayerNorm adds the sum of it so far, and the last
projection has it in its bias; both are exact by algebra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import layer_norm
from sdxl_engine.engines.cuda.kernels.text_attention import text_attention
from sdxl_engine.engines.cuda.layers import Norm, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sdxl_engine.engines.cuda.layers import Layers, Pending

_KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""In the order of their speed on Hopper; the first that has the head's width runs."""


def self_attention(qkv: Tensor, batch: int, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for every head, among the pixels of an image.

    Args:
        qkv: (B*T, 3*heads*D) fp16: queries, keys, values.
        batch: B.
        heads: How many.

    Returns:
        (B*T, heads*D) fp16.
    """
    width = qkv.shape[1] // 3 // heads
    query, key, value = qkv.view(batch, -1, 3, heads, width).permute(2, 0, 3, 1, 4)
    with sdpa_kernel(_KERNELS, set_priority=True):
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


class Layer:
    """One transformer layer: self-attention, attention to the text, feed-forward.

    Args:
        layers: Makes its layers.
        module: Its weights.
        entering: (C,) fp32: what the residual stream leaves out when it comes in.
    """

    def __init__(self, layers: Layers, module: Any, entering: Tensor) -> None:
        own, text = module.attn1, module.attn2
        self._heads = own.heads
        self._norm1, self._norm2, self._norm3 = (Norm.of(module.norm1), Norm.of(module.norm2), Norm.of(module.norm3))
        self._qkv = layers.linear(own.to_q, torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight]))
        self._own_out = layers.linear(own.to_out[0])
        self._query = layers.linear(text.to_q)
        self._context = layers.linear(text.to_k, torch.cat([text.to_k.weight, text.to_v.weight]))
        self._text_out = layers.linear(text.to_out[0])
        widen, narrow = module.ff.net[0].proj, module.ff.net[2]
        self._narrow = layers.linear(narrow)
        self._widen = layers.geglu(widen, self._narrow)
        self._shift1 = entering
        self._shift2 = self._shift1 + own.to_out[0].bias.float()
        self._shift3 = self._shift2 + text.to_out[0].bias.float()
        self.leaving = self._shift3 + narrow.bias.float()

    def context(self, text: Tensor) -> Tensor:
        """Keys and values of the text: (B, 77, W) fp16 to (B, 77, 2C) fp16."""
        return self._context(text.flatten(0, 1)).view(*text.shape[:2], -1)

    def __call__(self, stream: Tensor, context: Tensor) -> None:
        """Add to the residual stream, (B*T, C) fp16, in place."""
        qkv = self._qkv(layer_norm(stream, self._norm1, self._shift1, self._qkv.scale))
        self._own_out.add_to(stream, self_attention(qkv, len(context), self._heads))
        query = self._query(layer_norm(stream, self._norm2, self._shift2, self._query.scale))
        self._text_out.add_to(stream, text_attention(query, context, self._heads, self._text_out.scale))
        wide = self._widen(layer_norm(stream, self._norm3, self._shift3, self._widen.scale))
        self._narrow.add_to(stream, wide)


class Transformer:
    """GroupNorm, projection, layers, projection, residual.

    Args:
        layers: Makes its layers.
        module: Its weights.
    """

    def __init__(self, layers: Layers, module: Any) -> None:
        self._norm = Norm.of(module.norm)
        self._proj_in = layers.linear(module.proj_in, bias=module.proj_in.bias)
        shift = torch.zeros_like(module.proj_in.bias, dtype=torch.float32)
        self._layers: list[Layer] = []
        for block in module.transformer_blocks:
            self._layers.append(Layer(layers, block, shift))
            shift = self._layers[-1].leaving
        weight, bias = module.proj_out.weight.flatten(1), module.proj_out.bias
        bias = (bias.double() + weight.double() @ shift.double()).to(bias.dtype)
        self._proj_out = layers.linear(module.proj_out, bias=bias)

    def context(self, text: Tensor) -> list[Tensor]:
        """Keys and values of the text, (B, 77, W) fp16, for every layer: (B, 77, 2C) fp16."""
        return [layer.context(text) for layer in self._layers]

    def __call__(self, x: Pending | Tensor, context: Iterator[Tensor]) -> Tensor:
        """(B, H, W, C) fp16 to the same; takes its layers' share of `context`."""
        normed, total = group_norm(x, self._norm, silu=False)
        stream = self._proj_in(rows(normed))
        for layer in self._layers:
            layer(stream, next(context))
        self._proj_out.add_to(rows(total), stream)
        return total
