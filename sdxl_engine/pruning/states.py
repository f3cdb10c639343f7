"""What a deep UNet is asked on its way through the denoising loop: latents of the full UNet's own trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.models.prompts import GUIDANCE_SCALE, STEPS
from sdxl_engine.models.spec import read_spec
from sdxl_engine.schedule import read_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

BATCH = 64
"""Prompts at a time, on the way to the states."""


@dataclass(frozen=True)
class States:
    """N inputs of a deep UNet, all on one device; state n is step `n % STEPS` of prompt `n // STEPS`.

    Args:
        samples: (N, 4, S, S) float16, scaled by the schedule.
        timesteps: (STEPS,) float32.
        context: (P + 1, 77, C) float16: hidden states of the prompts, and last of the negative prompt.
        pooled: (P + 1, W) float16, likewise.
        time_ids: (6,) float32.
    """

    samples: Tensor
    timesteps: Tensor
    context: Tensor
    pooled: Tensor
    time_ids: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def inputs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The inputs of `DeepUnet` for B states: 2B rows, negative first, each with its own timestep.

        Args:
            rows: (B,) int64, on the states' device.
        """
        prompt = torch.cat([torch.full_like(rows, len(self.context) - 1), rows // len(self.timesteps)])
        return (
            self.samples[rows].float().repeat(2, 1, 1, 1),
            self.timesteps[rows % len(self.timesteps)].repeat(2),
            self.context[prompt].float(),
            self.pooled[prompt].float(),
            self.time_ids.expand(len(prompt), -1),
        )


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 products on a GPU, float32 on a CPU; what is cast is not kept, so that a CUDA graph can hold it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


@torch.no_grad()
def walk(networks: Mapping[str, nn.Module], checkpoint: Path, prompts: list[str], seed: int) -> States:
    """Draw prompts with the full UNet at every step, each from a latent of its own, and keep what the UNet was given.

    The benchmark's pipeline starts every image from one latent; a network trained on that alone would be made for it.

    Args:
        networks: From `load_networks`, on the device to draw on.
        checkpoint: Their folder.
        prompts: One trajectory each.
        seed: Of the initial latents.
    """
    spec, schedule = read_spec(checkpoint), read_schedule(checkpoint, STEPS)
    device = next(networks["unet"].parameters()).device
    tokens = tokenise(checkpoint, prompts, spec.tokens).to(device)
    texts: list[tuple[Tensor, Tensor]] = []
    ids = torch.cat([tokens.first, tokens.negative_first]), torch.cat([tokens.second, tokens.negative_second])
    for first, second in zip(*(torch.split(each, BATCH) for each in ids), strict=True):
        _, narrow = networks["clip1"](first)
        pooled, wide = networks["clip2"](second)
        texts.append((torch.cat([narrow, wide], dim=-1).half(), pooled.half()))
    context, pooled = (torch.cat(part) for part in zip(*texts, strict=True))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), spec.latent_channels, spec.latent_side, spec.latent_side)
    latents = torch.randn(shape, generator=generator).to(device) * schedule.init_noise_sigma
    samples = torch.empty((len(prompts), STEPS, *shape[1:]), dtype=torch.float16, device=device)
    states = States(
        samples.flatten(0, 1),
        torch.from_numpy(schedule.timesteps).to(device),
        context,
        pooled,
        torch.tensor(spec.time_ids, device=device),
    )
    sigmas = schedule.sigmas.tolist()
    for own in torch.split(torch.arange(len(prompts), device=device), BATCH):
        latent = latents[own]
        for step in range(STEPS):
            samples[own, step] = (latent / (sigmas[step] ** 2 + 1) ** 0.5).half()
            with autocast(device):
                outputs: Any = networks["unet"](*states.inputs(own * STEPS + step))
            negative, positive = outputs[0].float().chunk(2)
            guided = negative + GUIDANCE_SCALE * (positive - negative)
            latent = latent + guided * (sigmas[step + 1] - sigmas[step])
    return states
