"""The pruned UNet of a checkpoint: where it lies, and the check that it fits the others.

It lies beside the full one, as `unet_pruned/` in the checkpoint's folder, in the diffusers layout, and takes the full
one's place in the deep steps of `DeepCachePruned`; the shallow steps stay the full UNet's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

MODEL_OPT = "DeepCachePruned"
FULL, PRUNED = "unet", "unet_pruned"
"""Folders of a checkpoint."""

REPORT = "pruning.json"
"""Beside the weights: what was dropped, and how the rest was trained."""

_SHAPING = (
    "in_channels",
    "out_channels",
    "sample_size",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)
"""What the interface of a UNet and its cached features follow from."""


def deep_unet(model_opt: str) -> str:
    """The folder of the UNet that a variant's deep steps run."""
    return PRUNED if model_opt == MODEL_OPT else FULL


def has_pruned(checkpoint: Path) -> bool:
    """Whether a checkpoint comes with a pruned UNet."""
    return (checkpoint / PRUNED / "config.json").is_file()


def check_fits(checkpoint: Path) -> None:
    """Refuse a pruned UNet with another interface than the full one, whose shallow half reads its features.

    Raises:
        AssetError: the configurations differ, or one is missing.
    """
    path = checkpoint / PRUNED / "config.json"
    full = read_json(checkpoint / FULL / "config.json", "the configuration of the UNet")
    pruned = read_json(path, "the configuration of the pruned UNet")
    differing = [key for key in _SHAPING if full.get(key) != pruned.get(key)]
    if differing:
        raise AssetError(
            "the pruned UNet does not fit the checkpoint",
            got=", ".join(f"{key} {pruned.get(key)}" for key in differing),
            expected=", ".join(f"{key} {full.get(key)}" for key in differing),
            source=path,
        )
