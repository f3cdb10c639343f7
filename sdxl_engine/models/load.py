"""The five networks as PyTorch modules, loaded from a diffusers-layout checkpoint."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json
from sdxl_engine.models import pruned
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.models.text import encode_text
from sdxl_engine.models.unet_split import DeepUnet, ShallowUnet, keep_shallow_part
from sdxl_engine.models.weights import read_weights, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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


def load_network(
    checkpoint: Path, name: str, dtype: torch.dtype = torch.float32, model_opt: str = "NoOpt"
) -> nn.Module:
    """Load one network onto the CPU, in evaluation mode.

    Args:
        checkpoint: A diffusers-layout folder.
        name: One of `spec.NETWORKS`.
        dtype: Of the weights.
        model_opt: Which variant's network.

    Raises:
        AssetError: a part of the checkpoint is missing or damaged, or lacks weights, or the pruned UNet does not fit
            the full one.
    """
    with _quiet():
        if name == "unet":
            if pruned.deep_unet(model_opt) == pruned.PRUNED:
                pruned.check_fits(checkpoint)
            network: nn.Module = DeepUnet(load_unet(checkpoint / pruned.deep_unet(model_opt), dtype))
        elif name == "shallow_unet":
            network = ShallowUnet(load_unet(checkpoint / pruned.FULL, dtype))
        else:
            network = _LOADERS[name](checkpoint, dtype)
    return network.eval().requires_grad_(requires_grad=False)


def load_networks(
    checkpoint: Path,
    dtype: torch.dtype = torch.float32,
    decoder_dtype: torch.dtype | None = None,
    model_opt: str = "NoOpt",
) -> dict[str, nn.Module]:
    """Load all networks, named as `spec.NETWORKS`.

    Both UNets share their weights; but for `DeepCachePruned` the deep one is the pruned UNet, and of the full one only
    what the shallow pass runs is kept.

    Args:
        checkpoint: A diffusers-layout folder.
        dtype: Of the weights.
        decoder_dtype: Of the decoder's, if it is another; see `ModelSpec.upcast_decoder`.
        model_opt: Which variant's networks.

    Raises:
        AssetError: see `load_network`.
    """
    dtypes = dict.fromkeys(NETWORKS, dtype) | {"vae": decoder_dtype or dtype}
    shares = pruned.deep_unet(model_opt) == pruned.FULL
    own = {
        name: load_network(checkpoint, name, dtypes[name], model_opt)
        for name in NETWORKS
        if name != "shallow_unet" or not shares
    }
    if shares:
        own["shallow_unet"] = ShallowUnet(own["unet"].unet).eval()
    else:
        keep_shallow_part(own["shallow_unet"].unet)
    return {name: own[name] for name in NETWORKS}


def load_unet(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A UNet2DConditionModel on the CPU, in evaluation mode.

    It lies on the mapped file: neither drawn at random first nor copied, which would take its size once more.

    Args:
        folder: Of a checkpoint, such as `unet`.
        dtype: Of the weights.

    Raises:
        AssetError: it does not load.
    """
    from diffusers import UNet2DConditionModel

    config = read_json(folder / "config.json", f"the configuration of {folder.name}")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    try:
        found = unet.load_state_dict(dict(read_weights(folder, dtype)), strict=False, assign=True)
    except RuntimeError as error:
        raise _does_not_load(folder.name, error, folder) from None
    _check_complete(folder.name, found.missing_keys, folder)
    return unet.eval()


def _part(loader: Any, folder: Path, options: dict[str, Any]) -> Any:
    weight_files(folder)
    try:
        loaded, info = loader.from_pretrained(folder, output_loading_info=True, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _does_not_load(folder.name, error, folder) from error
    _check_complete(folder.name, info["missing_keys"], folder)
    return loaded


def _check_complete(name: str, missing: Iterable[str], folder: Path) -> None:
    """The libraries draw at random what a file lacks, and only warn."""
    # An encoder of pictures is no part of this pipeline.
    lacking = sorted(key for key in missing if not key.startswith(("encoder.", "quant_conv.")) or name != "vae")
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        got = f"without {', '.join(lacking[:3])}{more}"
        raise AssetError(f"the weights of {name} are not complete", got=got, source=folder)


def _does_not_load(name: str, error: Exception, folder: Path) -> AssetError:
    return AssetError(f"cannot load {name}", got=error, source=folder)


def _clip1(checkpoint: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import CLIPTextModel

    return TextEncoder(_part(CLIPTextModel, checkpoint / "text_encoder", {"dtype": dtype}))


def _clip2(checkpoint: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import CLIPTextModelWithProjection

    return TextEncoder(_part(CLIPTextModelWithProjection, checkpoint / "text_encoder_2", {"dtype": dtype}))


def _vae(checkpoint: Path, dtype: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderKL

    # diffusers advises to install `accelerate`, which is not needed, at every load unless told not to use it.
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    return Decoder(_part(AutoencoderKL, checkpoint / "vae", options))


_LOADERS: dict[str, Callable[[Path, torch.dtype], nn.Module]] = {"clip1": _clip1, "clip2": _clip2, "vae": _vae}


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
