"""Configurations of an SDXL of full topology that is made in a moment: 8x8 latents, random weights."""

from sdxl_engine.models.full_size import CONFIGS

_UNET = {
    "sample_size": 8,
    "attention_head_dim": (2, 2, 2),
    "cross_attention_dim": 48,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_CHANGES = {
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT | {"hidden_size": 32, "projection_dim": 32},
    "vae": {"block_out_channels": (32, 32, 32, 32), "sample_size": 64},
}


def small_configs(**unet):
    """By part, as `make_random_checkpoint` takes them; the UNet's widths and depths are the caller's."""
    changes = _CHANGES | {"unet": _UNET | unet}
    return {name: config | changes[name] for name, config in CONFIGS.items()}
