"""The configuration files of a checkpoint's networks, and what a checkpoint is that lacks one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""Folders of a diffusers-layout checkpoint that hold networks."""


def part_config(checkpoint: Path, part: str) -> dict[str, Any]:
    """The configuration of one network.

    Args:
        checkpoint: A diffusers-layout folder.
        part: One of `PARTS`.

    Raises:
        AssetError: it is missing or not JSON; a checkpoint without the part is called by the name it gives itself.
    """
    path = checkpoint / part / "config.json"
    if not path.is_file() and (checkpoint / "model_index.json").is_file():
        raise AssetError(
            f"this checkpoint has no {part}",
            got=_without(checkpoint, part),
            expected="Stable Diffusion XL base, with " + ", ".join(PARTS),
            source=checkpoint,
        )
    loaded: dict[str, Any] = read_json(path, f"the configuration of {part}")
    return loaded


def _without(checkpoint: Path, part: str) -> str:
    """What a checkpoint is that lacks a part, by the name that it gives itself."""
    index = read_json(checkpoint / "model_index.json", "the checkpoint's index")
    name = index.get("_class_name", "no name of a pipeline")
    if index.get(part, (None, None))[0] is not None:
        return f"{name}, whose index names {part}: the download is not complete"
    kinds = {"text_encoder_2": "Stable Diffusion 1 or 2", "text_encoder": "the refiner of Stable Diffusion XL"}
    return f"{name}, as of {kinds[part]}" if part in kinds else f"{name} without {part}"
