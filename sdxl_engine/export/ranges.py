"""The ranges of a UNet's layers, measured once and kept in the engine cache, for every 8-bit precision."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from sdxl_engine import pipeline, schedule
from sdxl_engine.engines.cache import built_once
from sdxl_engine.errors import UnavailableError
from sdxl_engine.export import calibration
from sdxl_engine.export.exported import export_ingredients
from sdxl_engine.export.quantised_layers import Amax
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.models.spec import ModelSpec

_MODELOPT = "nvidia-modelopt"
_MEASURED_BY = (calibration, pipeline, schedule)


def measured_ranges(
    checkpoint: Path, spec: ModelSpec, cache: Path, recipe: Recipe, model_opt: str = "NoOpt"
) -> dict[str, Amax]:
    """The range of every linear layer and convolution of a deep UNet, those that the recipe keeps among them.

    Args:
        checkpoint: A diffusers-layout folder that there are calibration captions for.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        recipe: Says which captions; those of equal captions share the ranges.
        model_opt: Which variant's.

    Returns:
        By layer's name; weights' by output channel.

    Raises:
        UsageError, UnavailableError: see `range_ingredients`.
    """

    def build(folder: Path) -> None:
        captions = calibration.calibration_captions(checkpoint, recipe)
        measured = calibration.calibrated(checkpoint, spec, captions, model_opt)
        for which in ("input", "weight"):
            save_file({name: getattr(amax, which) for name, amax in measured.items()}, folder / f"{which}.safetensors")

    folder = built_once(cache, "ranges", range_ingredients(checkpoint, recipe, model_opt), build)
    inputs, weights = (load_file(folder / f"{which}.safetensors") for which in ("input", "weight"))
    return {name: Amax(inputs[name], weights[name]) for name in inputs}


def range_ingredients(checkpoint: Path, recipe: Recipe, model_opt: str = "NoOpt") -> dict[str, object]:
    """Everything that decides what the ranges of a deep UNet are.

    Raises:
        UsageError: there are no calibration captions for the checkpoint.
        UnavailableError: ModelOpt is not installed.
    """
    captions = calibration.calibration_captions(checkpoint, recipe)
    try:
        version = importlib.metadata.version(_MODELOPT)
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(
            f"{recipe.precision} needs NVIDIA ModelOpt to measure ranges with",
            got=f"no package {_MODELOPT}",
            fix="pip install 'pytest-sdxl[quantise]'",
        ) from None
    return export_ingredients(checkpoint, "fp32", model_opt) | {
        "what": "ranges",
        "captions": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "modelopt": version,
        "measured_by": {module.__name__: sha256(Path(inspect.getfile(module))) for module in _MEASURED_BY},
    }
