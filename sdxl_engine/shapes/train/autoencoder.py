"""Stage 1: the KL autoencoder, on fresh renders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sdxl_engine.shapes.train.loop import Trainer
from sdxl_engine.shapes.train.networks import new_vae

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

    from sdxl_engine.shapes.train.data import Pool
    from sdxl_engine.shapes.train.recipe import Stage

KL_WEIGHT = 1e-6


def train_vae(stage: Stage, pool: Pool, bundle: Path, work: Path, stop_at: float | None) -> bool:
    """Train and save `vae/`; loss is L1 + 4 x squared error + KL. Returns whether the stage is complete."""
    device = pool.first.device
    vae = new_vae().to(device, memory_format=torch.channels_last)

    def loss() -> Tensor:
        picture = (2 * pool.pictures(pool.draw(stage.batch)) - 1).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            moments = vae.quant_conv(vae.encoder(picture)).float()
            mean, log_variance = moments.chunk(2, dim=1)
            log_variance = log_variance.clamp(-30, 20)
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            back = vae.decoder(vae.post_quant_conv(latent)).float()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
        total: Tensor = F.l1_loss(back, picture) + 4 * F.mse_loss(back, picture) + KL_WEIGHT * kl
        return total

    trainer = Trainer("vae", stage, [vae], loss, work)
    if not trainer.run(stop_at=stop_at):
        return False
    vae.eval()
    with torch.no_grad():
        picture = 2 * pool.pictures(pool.draw(256 if device.type == "cuda" else 4)) - 1
        latent = encode(vae, picture)
        scale = float(1 / latent.std())
        error = F.mse_loss(vae.decode(latent).sample.clamp(-1, 1), picture)
        print(f"vae: {10 * float(torch.log10(4 / error)):.2f} dB on fresh renders, scaling factor {scale:.4f}")
    vae.register_to_config(scaling_factor=round(scale, 4))
    vae.to(memory_format=torch.contiguous_format).half().save_pretrained(bundle / "vae")
    return True


def encode(vae: AutoencoderKL, picture: Tensor) -> Tensor:
    """Mode of the latent distribution, unscaled: (B,3,128,128) in [-1,1] to (B,4,16,16)."""
    mode: Tensor = vae.encode(picture).latent_dist.mode()
    return mode
