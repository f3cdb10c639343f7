"""The networks of `shapes`, untrained: SDXL's topology at 128x128 pixels and 4x16x16 latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import open_clip
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

if TYPE_CHECKING:
    import torch

TEXT_WIDTHS = (64, 96)
POOLED_WIDTH = 96
TIME_ID_WIDTH = 32
TOKENS = 77

CLIP_TOKENS = 48
FEATURE_CHANNELS = (24, 48, 72, 96)
FEATURE_DIMS = 64
FEATURE_SIDE = 64


def new_vae() -> AutoencoderKL:
    """A KL autoencoder, 8 times smaller per side: (B,3,128,128) in [-1,1] to (B,4,16,16) and back; 2.0 M parameters."""
    channels = (24, 48, 80, 96)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=128,
        force_upcast=False,
    )


def new_unet() -> UNet2DConditionModel:
    """SDXL's UNet with channels 40-80-112 and transformer depths 0-1-2; 7.6 M parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(40, 80, 112),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        # As in SDXL's own configuration, this key holds the number of heads: 16 channels each.
        attention_head_dim=(5, 5, 7),
        cross_attention_dim=sum(TEXT_WIDTHS),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * TIME_ID_WIDTH,
    )


def new_text_encoders(vocabulary: int, eos: int, bos: int) -> tuple[Any, Any]:
    """The two CLIP text encoders: widths 64 (quick_gelu) and 96 (gelu, with projection), as SDXL's 768 and 1280."""
    common = {
        "vocab_size": vocabulary,
        "max_position_embeddings": TOKENS,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "projection_dim": POOLED_WIDTH,
    }
    first, second = TEXT_WIDTHS
    small = CLIPTextConfig(
        hidden_size=first,
        intermediate_size=4 * first,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act="quick_gelu",
        pad_token_id=eos,
        **common,
    )
    large = CLIPTextConfig(
        hidden_size=second,
        intermediate_size=4 * second,
        num_hidden_layers=4,
        num_attention_heads=6,
        hidden_act="gelu",
        pad_token_id=0,
        **common,
    )
    return CLIPTextModel(small), CLIPTextModelWithProjection(large)


def clip_config(vocabulary: int) -> dict[str, Any]:
    """Keyword arguments of `open_clip.CLIP` for the metric's network, with the normalisation of its pictures."""
    return {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 128, "layers": 4, "width": 96, "head_width": 32, "patch_size": 16},
        "text_cfg": {
            "context_length": CLIP_TOKENS,
            "vocab_size": vocabulary,
            "width": 64,
            "heads": 4,
            "layers": 3,
        },
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }


def new_clip(config: dict[str, Any]) -> torch.nn.Module:
    """The metric's CLIP from `clip_config`."""
    network: torch.nn.Module = open_clip.CLIP(
        **{key: config[key] for key in ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")}
    )
    return network
