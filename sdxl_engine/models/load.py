"""The five networks as PyTorch modules, loaded from a diffusers-layout checkpoint."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdxl_engine.errors import AssetError
from sdxl_engine.models import pruned
from sdxl_engine.models.text import encode_text
from sdxl_engine.models.unet_split import DeepUnet, ShallowUnet, keep_shallow_part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TextEncoder(nn.Module):
    """A CLIP text encoder with the benchmark's two outputs."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 77) int32 to text_embeddings (B, 77, C) or projected (B, P), and hidden_states (B, 77, C)."""
        hidden_states, text_embeddings = encode_text(self.encoder, input_ids)
        return text_embeddings, hidden_states


class Decoder(nn.Module):
    """The autoencoder's decoder: (B, 4, S, S) unscaled latents to (B, 3, 8S, 8S) in about [-1, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latent: Tensor) -> Tensor:
        """Decode; scaling is the pipeline's."""
        images: Tensor = self.decoder(self.post_quant_conv(latent))
        return images


def load_networks(
    checkpoint: Path,
    dtype: torch.dtype = torch.float32,
    decoder_dtype: torch.dtype | None = None,
    model_opt: str = "NoOpt",
) -> dict[str, nn.Module]:
    """Load the networks onto the CPU, in evaluation mode, named as `spec.NETWORKS`.

    Both UNets share their weights; but for `DeepCachePruned` the deep one is the pruned UNet, and of the full one only
    what the shallow pass runs is kept.

    Args:
        checkpoint: A diffusers-layout folder.
        dtype: Of the weights.
        decoder_dtype: Of the decoder's, if it is another; see `ModelSpec.upcast_decoder`.
        model_opt: Which variant's networks.

    Raises:
        AssetError: a part of the checkpoint is missing or does not load, or the pruned UNet does not fit the full one.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    text = {"dtype": dtype}
    unet = deep = load_unet(checkpoint / pruned.FULL, dtype)
    if pruned.deep_unet(model_opt) == pruned.PRUNED:
        pruned.check_fits(checkpoint)
        deep = load_unet(checkpoint / pruned.PRUNED, dtype)
        keep_shallow_part(unet)
    with _quiet():
        networks: dict[str, nn.Module] = {
            "clip1": TextEncoder(_part(CLIPTextModel, checkpoint / "text_encoder", **text)),
            "clip2": TextEncoder(_part(CLIPTextModelWithProjection, checkpoint / "text_encoder_2", **text)),
            "unet": DeepUnet(deep),
            "shallow_unet": ShallowUnet(unet),
            "vae": Decoder(_part(AutoencoderKL, checkpoint / "vae", torch_dtype=decoder_dtype or dtype, **_OWN_LOADER)),
        }
    for network in networks.values():
        network.eval().requires_grad_(requires_grad=False)
    return networks


def load_unet(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A UNet2DConditionModel on the CPU, in evaluation mode.

    Raises:
        AssetError: it does not load.
    """
    from diffusers import UNet2DConditionModel

    with _quiet():
        return _part(UNet2DConditionModel, folder, torch_dtype=dtype, **_OWN_LOADER)


_OWN_LOADER = {"low_cpu_mem_usage": False}
"""diffusers advises to install `accelerate`, which is not needed, at every load unless told not to use it."""


def _part(loader: Any, folder: Path, **options: Any) -> Any:
    try:
        return loader.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise AssetError(f"cannot load {folder.name}", got=error, source=folder) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and both libraries' load reports, which are noise in a benchmark's output."""
    import transformers.utils.logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
