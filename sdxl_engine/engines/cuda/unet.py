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
import torch.nn.functional as F
from torch import Tensor

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.kernels.pointwise import add_up
from sdxl_engine.engines.cuda.layers import Norm, Pending
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
        self._time_proj, self._time_embedding = unet.time_proj, unet.time_embedding
        self._size_proj, self._size_embedding = unet.add_time_proj, unet.add_embedding
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
        dtype = text_embeds.dtype
        time = self._time_embedding(self._time_proj(timesteps).to(dtype))
        sizes = self._size_proj(time_ids.flatten()).reshape(len(text_embeds), -1).to(dtype)
        added = self._size_embedding(torch.cat([text_embeds, sizes], dim=-1))
        hidden = F.silu(time[:, None] + added[None])
        return [each.split(self._widths, dim=-1) for each in F.linear(hidden, self._weight, self._bias)]


class OuterLevel:
    """What a shallow step runs, and a deep one begins and ends with: conv_in, the outermost up block, the output head.

    Args:
        layers: Makes its layers.
        unet: diffusers' UNet, its weights on the GPU, fp16.
    """

    def __init__(self, layers: Layers, unet: Any) -> None:
        self._conv_in, self._conv_out = layers.conv(unet.conv_in), layers.conv(unet.conv_out)
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


@dataclass(frozen=True)
class Block:
    """One of the UNet's blocks, without its scaler.

    Args:
        resnets: Its residual blocks.
        transformers: Those that follow them, one for each of the first.
    """

    resnets: list[Resnet]
    transformers: list[Transformer]

    def __call__(
        self, number: int, hidden: Tensor, shift: Tensor, text: Iterator[Tensor], skip: Tensor | None = None
    ) -> Tensor:
        """One residual block and its transformer.

        Args:
            number: Which.
            hidden: (B, H, W, C) fp16.
            shift: The residual block's, see `Conditioning`.
            text: Keys and values; the transformer takes those of its layers.
            skip: (B, H, W, C') fp16, or None.
        """
        given = self.resnets[number](hidden, shift, skip)
        return self.transformers[number](given, text) if number < len(self.transformers) else add_up(given)


class DeepUnet:
    """All levels.

    Args:
        layers: Makes its layers.
        unet: diffusers' UNet, its weights on the GPU, fp16. Its attentions may have any number of layers.
    """

    def __init__(self, layers: Layers, unet: Any) -> None:
        self.outer = OuterLevel(layers, unet)
        conditioned: list[tuple[Resnet, Any]] = []

        def block(module: Any, entering: int | None = None) -> Block:
            """With the channels that enter it, if it has skip connections."""
            resnets = []
            for each in module.resnets:
                resnets.append(Resnet(layers, each, entering))
                entering = None if entering is None else each.out_channels
            conditioned.extend(zip(resnets, module.resnets, strict=True))
            return Block(resnets, [Transformer(layers, each) for each in getattr(module, "attentions", ())])

        self._down = [
            (block(each), layers.conv(each.downsamplers[0].conv) if each.downsamplers else None)
            for each in unet.down_blocks
        ]
        self._middle = block(unet.mid_block)
        inner = unet.up_blocks[:-1]
        widths = [unet.mid_block.resnets[-1].out_channels, *(each.resnets[-1].out_channels for each in inner)]
        self._up = [
            (block(each, width), layers.upsample(each.upsamplers[0].conv))
            for each, width in zip(inner, widths, strict=False)
        ]
        self.conditioning = Conditioning(unet, conditioned)

    def context(self, text: Tensor) -> list[Tensor]:
        """Keys and values of the text, (B, 77, W) fp16, for every layer in the order in which they run."""
        blocks = [*(block for block, _ in self._down), self._middle, *(block for block, _ in self._up)]
        return [pair for block in blocks for transformer in block.transformers for pair in transformer.context(text)]

    def __call__(
        self, sample: Tensor, context: list[Tensor], shifts: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        hidden = self.outer.enter(sample)
        skips = [hidden]
        for block, downsampler in self._down:
            for number in range(len(block.resnets)):
                hidden = block(number, hidden, next(shift), text)
                skips.append(hidden)
            if downsampler is not None:
                hidden = add_up(Pending(downsampler(hidden), downsampler.bias))
                skips.append(hidden)
        for number in range(len(self._middle.resnets)):
            hidden = self._middle(number, hidden, next(shift), text)
        entered, first, second = skips[:3]
        for block, upsampler in self._up:
            for number in range(len(block.resnets)):
                hidden = block(number, hidden, next(shift), text, skips.pop())
            hidden = upsampler(hidden)
        return entered, first, second, hidden
