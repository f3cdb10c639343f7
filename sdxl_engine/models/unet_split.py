"""The UNet as DeepCache runs it: a deep pass that leaves three features behind, a shallow pass that starts from them.

Neighbouring denoising steps have nearly the same features away from the outermost level, so every other step may reuse
them: only the embeddings, `conv_in`, `up_blocks.2` and the output head run again.

Source: Ma et al., "DeepCache: Accelerating Diffusion Models for Free", CVPR 2024; the split at `up_blocks.2` and the
names of the features are those of NVIDIA's MLPerf Inference v4.0 open submission.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _conditioning(unet: Any, timestep: Tensor, text_embeds: Tensor, time_ids: Tensor) -> Tensor:
    """Time embedding plus SDXL's text_time embedding: (1,), (B,P), (B,6) to (B,E)."""
    rows = text_embeds.shape[0]
    time = unet.time_embedding(unet.time_proj(timestep.expand(rows)).to(text_embeds.dtype))
    sizes = unet.add_time_proj(time_ids.flatten()).reshape(rows, -1).to(text_embeds.dtype)
    embedded: Tensor = time + unet.add_embedding(torch.cat([text_embeds, sizes], dim=-1))
    return embedded


def _head(unet: Any, hidden: Tensor) -> Tensor:
    noise: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return noise


class DeepUnet(nn.Module):
    """Every block, as diffusers' UNet2DConditionModel runs them, with the three cached features as outputs."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict the noise.

        Args:
            sample: (B, 4, S, S), scaled by the schedule.
            timestep: (1,).
            encoder_hidden_states: (B, 77, C).
            text_embeds: (B, P).
            time_ids: (B, 6).

        Returns:
            noise (B, 4, S, S), and the features in the order of `spec.CACHED_FEATURES`.
        """
        unet: Any = self.unet
        emb = _conditioning(unet, timestep, text_embeds, time_ids)
        hidden = unet.conv_in(sample)
        skips = [hidden]
        for block in unet.down_blocks:
            if getattr(block, "has_cross_attention", False):
                hidden, kept = block(hidden, emb, encoder_hidden_states=encoder_hidden_states)
            else:
                hidden, kept = block(hidden, emb)
            skips.extend(kept)
        first, second = skips[1], skips[2]
        hidden = unet.mid_block(hidden, emb, encoder_hidden_states=encoder_hidden_states)
        for block in unet.up_blocks:
            entering = hidden
            count = len(block.resnets)
            taken, skips = tuple(skips[-count:]), skips[:-count]
            if getattr(block, "has_cross_attention", False):
                hidden = block(hidden, taken, emb, encoder_hidden_states=encoder_hidden_states)
            else:
                hidden = block(hidden, taken, emb)
        return _head(unet, hidden), first, second, entering


class ShallowUnet(nn.Module):
    """The outermost level alone, on features of an earlier deep pass."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
        first: Tensor,
        second: Tensor,
        entering: Tensor,
    ) -> Tensor:
        """Predict the noise.

        Args:
            sample: (B, 4, S, S), scaled by the schedule.
            timestep: (1,).
            text_embeds: (B, P).
            time_ids: (B, 6).
            first: `down.0.res_samples.0`, (B, C0, S, S).
            second: `down.0.res_samples.1`, (B, C0, S, S).
            entering: `up.1.sample`, (B, C1, S, S).

        Returns:
            noise (B, 4, S, S).
        """
        unet: Any = self.unet
        emb = _conditioning(unet, timestep, text_embeds, time_ids)
        skips = (unet.conv_in(sample), first, second)
        return _head(unet, unet.up_blocks[-1](entering, skips, emb))


def keep_shallow_part(unet: Any) -> None:
    """Take from a UNet, in place, every block that `ShallowUnet` does not run; `DeepUnet` cannot run it any more."""
    unet.down_blocks = nn.ModuleList()
    unet.mid_block = None
    unet.up_blocks = unet.up_blocks[-1:]
