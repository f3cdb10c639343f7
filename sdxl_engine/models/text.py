"""CLIP text encoding as SDXL uses it, with the causal mask made here.

transformers builds its mask with operations that synchronise with the host, so its own forward can neither be captured
in a CUDA graph nor exported with a dynamic batch. The layers are transformers' own; only the loop over them is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def encode_text(encoder: nn.Module, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Run a `CLIPTextModel` or `CLIPTextModelWithProjection`.

    Args:
        encoder: The transformers module.
        input_ids: (B, T) int32 or int64.

    Returns:
        hidden_states (B, T, C): the output of the last but one layer, without the final norm, as SDXL conditions on it;
        pooled (B, T, C) or (B, P): the normalised last hidden states for an encoder without projection, the projected
        state at the first end-of-text token for one with.

    Source: diffusers' StableDiffusionXLPipeline.encode_prompt (hidden_states[-2]); transformers' CLIPTextTransformer.
    """
    model: Any = encoder
    core = getattr(model, "text_model", model)
    tokens = input_ids.shape[1]
    hidden = core.embeddings.token_embedding(input_ids) + core.embeddings.position_embedding.weight[:tokens]
    mask = torch.full((tokens, tokens), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)
    layers = list(core.encoder.layers)
    for layer in layers[:-1]:
        hidden = layer(hidden, mask[None, None])
    penultimate = hidden
    last = core.final_layer_norm(layers[-1](hidden, mask[None, None]))
    if not hasattr(model, "text_projection"):
        return penultimate, last
    # The first end-of-text token: everything after it is padding. argmax gives the first of equal values; int32, since
    # ONNX's ArgMax takes no boolean.
    end = (input_ids == model.config.eos_token_id).to(torch.int32).argmax(dim=-1)
    row = torch.arange(input_ids.shape[0], device=input_ids.device)
    return penultimate, model.text_projection(last[row, end])
