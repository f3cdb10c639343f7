"""SDXL base 1.0 at its full size with seeded random weights, for speed and numerics where the checkpoint is not here.

Sizes are those of the published configuration files (stabilityai/stable-diffusion-xl-base-1.0); the tests hold the
counts of parameters against the published ones. Prompts and their tokens are those of `shapes`: a network takes the
same time over any token.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.cache import built_once, content_key
from sdxl_engine.models.spec import ModelSpec
from sdxl_engine.shapes.bundle import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "random"
SEED = 0
LATENT = "latents.npy"

_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": _TEXT
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
        "pad_token_id": 1,
    },
    "text_encoder_2": _TEXT
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
        "pad_token_id": 1,
    },
    "unet": {
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
    },
}
"""Constructor arguments by part; what is not named is the libraries' default, as in the published files."""

SPEC = ModelSpec(
    tokens=77,
    text_widths=(768, 1280),
    pooled_width=1280,
    latent_channels=4,
    latent_side=128,
    image_side=1024,
    unet_channels=(320, 640, 1280),
    vae_scaling_factor=0.13025,
    upcast_decoder=True,
)
"""What `read_spec` reads from them."""


def random_checkpoint(build_dir: Path, configs: Mapping[str, dict[str, Any]] = CONFIGS) -> Path:
    """Where the checkpoint lies or will lie; see `make_random_checkpoint`."""
    return build_dir / "models" / f"{NAME}-{content_key(_ingredients(configs))}"


def make_random_checkpoint(build_dir: Path, configs: Mapping[str, dict[str, Any]] = CONFIGS) -> Path:
    """A diffusers-layout folder of fp16 weights, made where it is not there: 6.9 GB at full size.

    Weights are drawn as the libraries initialise them, from `SEED`, on the CPU.
    """
    return built_once(build_dir / "models", NAME, _ingredients(configs), lambda folder: _write(folder, configs))


def _ingredients(configs: Mapping[str, dict[str, Any]]) -> dict[str, object]:
    libraries = {name: _version(name) for name in ("torch", "diffusers", "transformers")}
    return {"seed": SEED, "precision": "fp16", "configs": configs, "libraries": libraries}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def new_part(name: str, config: dict[str, Any]) -> Any:
    """One network of the checkpoint, on torch's default device and in its default dtype."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if name == "unet":
        return UNet2DConditionModel(**config)
    if name == "vae":
        return AutoencoderKL(**config)
    kind = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
    return kind(CLIPTextConfig(**config))


def _write(folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
    import numpy as np
    import torch

    default = torch.get_default_dtype()
    for name, config in configs.items():
        # In fp16 from the start: the UNet would take 10 GB more on its way there from fp32.
        torch.set_default_dtype(torch.float16)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                part = new_part(name, config)
        finally:
            torch.set_default_dtype(default)
        part.save_pretrained(folder / name)
        del part
    for name in ("scheduler", "tokenizer", "tokenizer_2"):
        shutil.copytree(BUNDLE / name, folder / name)
    shutil.copyfile(BUNDLE / "model_index.json", folder / "model_index.json")
    unet = configs["unet"]
    shape = (1, unet["in_channels"], unet["sample_size"], unet["sample_size"])
    np.save(folder / LATENT, np.random.default_rng(SEED).standard_normal(shape, dtype=np.float32))
