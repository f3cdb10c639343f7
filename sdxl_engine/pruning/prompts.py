"""The prompts to measure and to train on: never those that a run is scored by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import first_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import SHAPES

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.models.source import ModelSource

SINGLE_SHARE = 0.1
"""Of the prompts of `shapes`, those that show one object: the share of its training (`shapes/train/recipe.py`)."""


def training_prompts(model: ModelSource, captions: Path | None, count: int, seed: int) -> list[str]:
    """Prompts to prune and to distil with.

    Args:
        model: `shapes` has a grammar, whose held-out scenes are left out.
        captions: A file of captions in place of that.
        count: How many; of a file, the first.
        seed: Of the choice from the grammar.

    Raises:
        UsageError: a checkpoint, and no file; or the file holds fewer.
        AssetError: the file is missing or malformed.
    """
    if captions is not None:
        return [caption.text for caption in first_captions(captions, count)]
    if model.name == SHAPES:
        return grammar_prompts(count, seed)
    raise UsageError(
        "there are no prompts to prune with",
        got=f"the model {model.name}, whose own captions are those that it is scored by",
        expected="a file of other captions",
        source="--captions",
        fix="--captions FILE, in the columns of the benchmark's captions_source.tsv",
    )


def grammar_prompts(count: int, seed: int) -> list[str]:
    """Captions of scenes of `shapes` that no validation caption shows."""
    from sdxl_engine.shapes.grammar import split, training_captions

    _, scenes = split()
    return [caption for caption, _ in training_captions(scenes, count, SINGLE_SHARE, seed)]
