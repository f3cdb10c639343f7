"""The UNet's deep and shallow pass, written out for a GPU.

The function is diffusers' UNet2DConditionModel, cut as `sdxl_engine.models.unet_split` cuts it. What is the same for
all steps of a batch is computed once: the text's keys and values (`context`), the time embeddings (`shifts`), and of a
shallow step what follows from the cached features alone (`Kept`).

Source: Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023; Ma et al.,
"DeepCache", CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import add_up, upsample
from sdxl_engine.engines.cuda.layers import Conv, Norm, Pending
from sdxl_engine.engines.cuda.resnet import Half, Resnet
from sdxl_engine.engines.cuda.transformer import Transformer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sdxl_engine.engines.cuda.layers import Layers


@dataclass(frozen=True)
class Kept:
    """What the outermost up block computes from the cached features alone.

    Args:
        first: The first half of its first residual block.
        skip: (B, S, S, C0) fp16: the feature that its second residual block reads.
    """

    first: Half
    skip: Tensor


class Conditioning:
    """Time and size embeddings, for all steps at once.

    Args:
        unet: diffusers' UNet.
        resnets: The residual blocks that the embeddings go to, with their modules.
    """

    def __init__(self, unet: Any, resnets: Sequence[tuple[Resnet, Any]]) -> None:
        self._unet = unet
        self._weight = torch.cat([module.time_emb_proj.weight for _, module in resnets])
        self._bias = torch.cat([module.time_emb_proj.bias + resnet.conv1_bias for resnet, module in resnets])
        self._widths = [len(module.time_emb_proj.bias) for _, module in resnets]

    def __call__(self, timesteps: Tensor, text_embeds: Tensor, time_ids: Tensor) -> list[tuple[Tensor, ...]]:
        """What each residual block adds after its first convolution, and that convolution's bias.

        Args:
            timesteps: (T,) fp32.
            text_embeds: (B, P) fp16.
            time_ids: (B, 6) fp16.

        Returns:
            For each step and residual block (B, N) fp16.
        """
        unet, rows = self._unet, len(text_embeds)
        dtype = text_embeds.dtype
        time = unet.time_embedding(unet.time_proj(timesteps).to(dtype))
        sizes = unet.add_time_proj(time_ids.flatten()).reshape(rows, -1).to(dtype)
        added = unet.add_embedding(torch.cat([text_embeds, sizes], dim=-1))
        hidden = F.silu(time[:, None] + added[None])
        return [each.split(self._widths, dim=-1) for each in F.linear(hidden, self._weight, self._bias)]


class OuterLevel:
    """What a shallow step runs: conv_in, the outermost up block, the output head. The deep pass begins and ends with it.

    Args:
        layers: Makes its layers.
        unet: diffusers' UNet, its weights on the GPU, fp16.
    """

    def __init__(self, layers: Layers, unet: Any) -> None:
        self._conv_in, self._conv_out = Conv(unet.conv_in), Conv(unet.conv_out)
        self._norm_out = Norm.of(unet.conv_norm_out)
        block = unet.up_blocks[-1]
        narrow = unet.conv_in.out_channels
        self.resnets = [Resnet(layers, each, each.norm1.num_channels - narrow) for each in block.resnets]
        self.conditioning = Conditioning(unet, list(zip(self.resnets, block.resnets, strict=True)))

    def enter(self, sample: Tensor) -> Tensor:
        """(B, 4, S, S) fp16 to (B, S, S, C0)."""
        hidden = self._conv_in(sample.permute(0, 2, 3, 1).contiguous())
        return add_up(Pending(hidden, self._conv_in.bias))

    def keep(self, entering: Tensor | Pending, second: Tensor, first: Tensor) -> Kept:
        """What follows from the cached features `up.1.sample`, `down.0.res_samples.1` and `down.0.res_samples.0`."""
        return Kept(self.resnets[0].start(entering, second), first)

    def leave(self, kept: Kept, entered: Tensor, shifts: Sequence[Tensor]) -> Tensor:
        """The rest of the block, and the head.

        Args:
            kept: Of this or of an earlier step.
            entered: (B, S, S, C0): this step's.
            shifts: One for each residual block, see `Conditioning`.

        Returns:
            noise (B, 4, S, S) fp16, NCHW.
        """
        hidden = self.resnets[0].finish(kept.first, shifts[0])
        hidden = self.resnets[1](hidden, shifts[1], kept.skip)
        hidden = self.resnets[2](hidden, shifts[2], entered)
        normed, _ = group_norm(hidden, self._norm_out, silu=True, keep=False)
        noise = add_up(Pending(self._conv_out(normed), self._conv_out.bias))
        return noise.permute(0, 3, 1, 2)


class DeepUnet:
    """All levels.

    Args:
        layers: Makes its layers.
        unet: diffusers' UNet, its weights on the GPU, fp16. Its attentions may have any number of layers.
    """

    def __init__(self, layers: Layers, unet: Any) -> None:
        self._layers = layers
        self.outer = OuterLevel(layers, unet)
        self._resnets: list[tuple[Resnet, Any]] = []
        self._down = [
            (self._down_resnets(block), self._transformers(block), _scaler(block, "downsamplers"))
            for block in unet.down_blocks
        ]
        middle = unet.mid_block
        self._middle = (self._down_resnets(middle), self._transformers(middle))
        channels = unet.config.block_out_channels
        entering = channels[-1]
        self._up = []
        for block in unet.up_blocks[:-1]:
            self._up.append(
                (self._up_resnets(block, entering), self._transformers(block), _scaler(block, "upsamplers"))
            )
            entering = block.resnets[-1].out_channels
        self.conditioning = Conditioning(unet, self._resnets)

    def _down_resnets(self, block: Any) -> list[Resnet]:
        return [self._noted(Resnet(self._layers, module), module) for module in block.resnets]

    def _up_resnets(self, block: Any, entering: int) -> list[Resnet]:
        found = []
        for module in block.resnets:
            found.append(self._noted(Resnet(self._layers, module, entering), module))
            entering = module.out_channels
        return found

    def _transformers(self, block: Any) -> list[Transformer]:
        return [Transformer(self._layers, each) for each in getattr(block, "attentions", ())]

    def _noted(self, resnet: Resnet, module: Any) -> Resnet:
        self._resnets.append((resnet, module))
        return resnet

    def context(self, text: Tensor) -> list[Tensor]:
        """Keys and values of the text, (B, 77, W) fp16, for every layer in the order in which they run."""
        blocks = [*self._down, self._middle, *self._up]
        return [pair for block in blocks for transformer in block[1] for pair in transformer.context(text)]

    def __call__(self, sample: Tensor, context: list[Tensor], shifts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Everything but what `OuterLevel` leaves to do.

        Args:
            sample: (B, 4, S, S) fp16.
            context: See `context`.
            shifts: One for each residual block, see `Conditioning`.

        Returns:
            What entered, and the features `down.0.res_samples.0`, `down.0.res_samples.1` and `up.1.sample`, all
            (B, S, S, C) fp16.
        """
        text, shift = iter(context), iter(shifts)
        hidden: Tensor = self.outer.enter(sample)
        skips = [hidden]
        for resnets, transformers, scaler in self._down:
            for number, resnet in enumerate(resnets):
                hidden = _through(resnet(hidden, next(shift)), transformers, number, text)
                skips.append(hidden)
            if scaler is not None:
                hidden = add_up(Pending(scaler(hidden), scaler.bias))
                skips.append(hidden)
        resnets, transformers = self._middle
        for number, resnet in enumerate(resnets):
            hidden = _through(resnet(hidden, next(shift)), transformers, number, text)
        entered, first, second = skips[0], skips[1], skips[2]
        for resnets, transformers, scaler in self._up:
            for number, resnet in enumerate(resnets):
                hidden = _through(resnet(hidden, next(shift), skips.pop()), transformers, number, text)
            hidden = add_up(Pending(scaler(upsample(hidden)), scaler.bias))
        return entered, first, second, hidden


def _through(hidden: Pending, transformers: list[Transformer], number: int, text: Iterator[Tensor]) -> Tensor:
    """What a residual block gives, through the transformer that follows it, where one does."""
    return transformers[number](hidden, text) if number < len(transformers) else add_up(hidden)


def _scaler(block: Any, name: str) -> Conv | None:
    modules = getattr(block, name, None)
    return Conv(modules[0].conv) if modules else None
