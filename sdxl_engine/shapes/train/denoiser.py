"""Stage 3: the UNet and both text encoders, jointly, by noise prediction on latents encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from torch import Tensor

from sdxl_engine.files import read_json, write_json
from sdxl_engine.models.text import encode_text
from sdxl_engine.shapes.train.autoencoder import encode
from sdxl_engine.shapes.train.loop import Trainer
from sdxl_engine.shapes.train.networks import new_text_encoders, new_unet

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.shapes.train.data import Pool
    from sdxl_engine.shapes.train.recipe import Recipe

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}
"""SDXL's own scheduler configuration."""

ENCODE_BATCH = 1000
TIME_IDS = (128.0, 128.0, 0.0, 0.0, 128.0, 128.0)


@torch.no_grad()
def _latents(pool: Pool, bundle: Path) -> Tensor:
    """Scaled latents of one render of every caption of the pool: (N, 4, 16, 16) float16."""
    device = pool.first.device
    vae: Any = AutoencoderKL.from_pretrained(bundle / "vae", torch_dtype=torch.float32)
    vae = vae.to(device, memory_format=torch.channels_last)
    found = []
    for rows in torch.split(torch.arange(len(pool), device=device), ENCODE_BATCH):
        picture = (2 * pool.pictures(rows) - 1).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latent = encode(vae, picture).float()
        found.append((vae.config.scaling_factor * latent).half().contiguous())
    return torch.cat(found)


def train_denoiser(recipe: Recipe, pool: Pool, bundle: Path, work: Path, stop_at: float | None) -> bool:
    """Train and save `unet/`, `text_encoder/`, `text_encoder_2/`, `scheduler/`. Returns whether complete."""
    device = pool.first.device
    stage = recipe.denoiser
    latents = _latents(pool, bundle)
    unet = new_unet().to(device, memory_format=torch.channels_last)
    vocabulary = pool.eos + 1
    small, large = (encoder.to(device) for encoder in new_text_encoders(vocabulary, pool.eos, pool.eos - 1))
    scheduler: Any = EulerDiscreteScheduler(**SCHEDULER)
    kept = scheduler.alphas_cumprod.to(device)
    time_ids = torch.tensor([TIME_IDS], device=device).expand(stage.batch, -1)

    def predict(noisy: Tensor, time: Tensor, first: Tensor, second: Tensor) -> Tensor:
        narrow, _ = encode_text(small, first)
        wide, pooled = encode_text(large, second)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        context = torch.cat([narrow, wide], dim=-1)
        result: Tensor = unet(noisy, time, context, added_cond_kwargs=added, return_dict=False)[0]
        return result

    def loss() -> Tensor:
        rows = pool.draw(stage.batch)
        dropped = (torch.rand(stage.batch, 1, device=device) < recipe.unconditional).expand(-1, pool.first.shape[1])
        first = torch.where(dropped, pool.negative[0], pool.first[rows])
        second = torch.where(dropped, pool.negative[1], pool.second[rows])
        clean = latents[rows].float()
        noise = torch.randn_like(clean)
        time = torch.randint(len(kept), (stage.batch,), device=device)
        level = kept[time][:, None, None, None]
        noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            predicted = predict(noisy, time, first, second)
        return F.mse_loss(predicted.float(), noise)

    trainer = Trainer("denoiser", stage, [unet, small, large], loss, work, ema=recipe.ema)
    complete = trainer.run(stop_at=stop_at)
    trainer.use_averages()
    # Saved when interrupted too: a bundle that can be looked at while the training goes on.
    unet.to(memory_format=torch.contiguous_format).half().save_pretrained(bundle / "unet")
    for name, encoder in (("text_encoder", small), ("text_encoder_2", large)):
        encoder.half().save_pretrained(bundle / name)
        # transformers takes the dtype to load in from the configuration, diffusers loads the UNet in fp32: without this
        # a plain `StableDiffusionXLPipeline.from_pretrained(bundle)` would mix the two.
        path = bundle / name / "config.json"
        write_json(path, read_json(path, f"the configuration of {name}") | {"dtype": "float32"})
    scheduler.save_pretrained(bundle / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": False,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(bundle / "model_index.json", index)
    return complete
