"""The captions and the latent that a model's ranges are measured on: none of them is among those that are scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import first_captions, read_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import SHAPES, model_of
from sdxl_engine.pruning.prompts import grammar_prompts

if TYPE_CHECKING:
    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.settings import RunSettings

OWN = Path("calibration") / "captions.tsv"
"""Beside the initial latent, as MLCommons' text_to_image/tools/coco_calibration.py writes it below its data folder: the
captions of train2014 whose ids are in coco_cal_captions_list.txt."""


@dataclass(frozen=True)
class CalibrationSet:
    """What is drawn to measure ranges.

    Args:
        captions: The prompts.
        latent: The initial latent (.npy).
    """

    captions: tuple[str, ...]
    latent: Path


def calibration_set(settings: RunSettings, recipe: Recipe) -> CalibrationSet:
    """Captions of the model's that a run does not score, and the run's latent.

    Of `shapes`, captions of its training split. Of another model, the data set's calibration captions if they are there
    (`OWN`), else the last rows of the captions file: the same ones whatever number of captions is scored.

    Args:
        settings: Of the run: which model, which captions file, and how many of its captions are scored.
        recipe: Says how many captions, and of `shapes` which.

    Raises:
        UsageError: there are no captions that the run does not score.
        AssetError: a captions file is missing or malformed.
    """
    model = model_of(settings)
    if model.name == SHAPES:
        return CalibrationSet(tuple(grammar_prompts(recipe.captions, recipe.seed)), model.latent)
    own = model.latent.parent / OWN
    if own.is_file():
        rows = first_captions(own, recipe.captions)
    else:
        rows, scored = read_captions(model.captions), settings.samples or model.accuracy_samples
        if len(rows) < scored + recipe.captions:
            raise UsageError(
                f"there are no calibration captions for {recipe.precision}",
                got=f"no {own}; {len(rows)} captions in {model.captions}, {scored} of them scored",
                expected=f"{recipe.captions} captions that are not scored",
                source="precision",
                fix=f"put the data set's calibration captions there, or score at most {len(rows) - recipe.captions}"
                if len(rows) > recipe.captions
                else "put the data set's calibration captions there",
            )
        rows = rows[-recipe.captions :]
    return CalibrationSet(tuple(row.text for row in rows), model.latent)
