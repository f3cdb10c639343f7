"""The autoencoder's decoder, written out for a GPU, in fp16 also where its activations leave fp16's range.

SDXL's decoder was trained in fp32, and its residual stream grows beyond 65504. Here the stream is kept divided by a
power of two: weights and biases that write to it are divided, and the normalisations that read it, which do not depend
on a factor, have their epsilon divided by its square. That is exact but for what falls below fp16's smallest numbers.

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022; diffusers' AutoencoderKL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import add_up
from sdxl_engine.engines.cuda.layers import Norm, Pending, rows
from sdxl_engine.engines.cuda.resnet import Resnet

if TYPE_CHECKING:
    from torch import Tensor

    from sdxl_engine.engines.cuda.layers import Layers

RANGE = 1.0 / 128.0
"""What the residual stream is multiplied by where the model says that it leaves fp16's range."""


class Decoder:
    """Latents to images.

    Args:
        layers: Makes its layers.
        vae: diffusers' decoder and `post_quant_conv`, as `sdxl_engine.models.load.Decoder`, on the GPU, fp16.
        upcast: Whether its activations leave fp16's range, see `ModelSpec.upcast_decoder`.
    """

    def __init__(self, layers: Layers, vae: Any, *, upcast: bool) -> None:
        scale = RANGE if upcast else 1.0
        decoder = vae.decoder
        self._post_quant = vae.post_quant_conv
        self._conv_in = layers.conv(decoder.conv_in, scale)
        self._first, self._second = (Resnet(layers, each, scale=scale) for each in decoder.mid_block.resnets)
        attention = decoder.mid_block.attentions
        self._attention = SelfAttention(layers, attention[0], scale) if attention and attention[0] is not None else None
        self._up = []
        for block in decoder.up_blocks:
            # It reads the divided stream and writes to it, so only its bias is another.
            scaler = layers.upsample(block.upsamplers[0].conv, scale) if block.upsamplers else None
            self._up.append(([Resnet(layers, each, scale=scale) for each in block.resnets], scaler))
        self._norm_out = Norm.of(decoder.conv_norm_out, scale=scale)
        self._conv_out = layers.conv(decoder.conv_out)

    def __call__(self, latent: Tensor) -> Tensor:
        """(B, 4, S, S) fp16 unscaled latents to (B, 8S, 8S, 3) fp16 in about [-1, 1]."""
        x = self._post_quant(latent).permute(0, 2, 3, 1).contiguous()
        hidden: Tensor | Pending = Pending(self._conv_in(x), self._conv_in.bias)
        hidden = self._first(hidden, self._first.conv1_bias)
        if self._attention is not None:
            hidden = self._attention(hidden)
        hidden = self._second(hidden, self._second.conv1_bias)
        for resnets, scaler in self._up:
            for resnet in resnets:
                hidden = resnet(hidden, resnet.conv1_bias)
            if scaler is not None:
                hidden = scaler(add_up(hidden))
        normed, _ = group_norm(hidden, self._norm_out, silu=True, keep=False)
        return add_up(Pending(self._conv_out(normed), self._conv_out.bias))


class SelfAttention:
    """One head as wide as the image has channels, in the decoder's middle.

    Scores are written out, image by image: no fused kernel has heads that wide.
    """

    def __init__(self, layers: Layers, module: Any, scale: float) -> None:
        self._norm = Norm.of(module.group_norm, scale=scale)
        parts = (module.to_q, module.to_k, module.to_v)
        weight, bias = torch.cat([each.weight for each in parts]), torch.cat([each.bias for each in parts])
        self._qkv = layers.linear(module.to_q, weight, bias)
        out = module.to_out[0]
        self._out = layers.linear(out, out.weight * scale, out.bias * scale)
        self._heads = module.heads

    def __call__(self, x: Pending | Tensor) -> Tensor:
        """(B, H, W, C) fp16 to the same."""
        normed, total = group_norm(x, self._norm, silu=False)
        batch, height, width, channels = total.shape
        qkv = self._qkv(rows(normed)).view(batch, height * width, 3, self._heads, channels // self._heads)
        mixed = torch.empty(batch, height * width, channels, dtype=total.dtype, device=total.device)
        factor = (channels // self._heads) ** -0.5
        for image in range(batch):
            for head in range(self._heads):
                query, key, value = qkv[image, :, :, head].unbind(1)
                # The factor goes to the queries: the product of 512 channels would come close to fp16's range.
                weights = F.softmax((query * factor) @ key.t(), dim=-1)
                width_of = channels // self._heads
                torch.mm(weights, value, out=mixed[image, :, head * width_of : (head + 1) * width_of])
        self._out.add_to(rows(total), rows(mixed))
        return total
