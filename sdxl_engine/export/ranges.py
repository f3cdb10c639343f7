"""What a UNet's ranges are taken from, measured once and kept in the engine cache, for every 8-bit recipe."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from sdxl_engine import pipeline, schedule
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.engines.cache import built_once
from sdxl_engine.errors import UnavailableError
from sdxl_engine.export import calibration
from sdxl_engine.export.exported import export_ingredients
from sdxl_engine.export.statistics import LayerStatistics
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from sdxl_engine.export.calibration_set import CalibrationSet
    from sdxl_engine.models.spec import ModelSpec

_MODELOPT = "nvidia-modelopt"
_CALIBRATOR = Path(__file__).with_name("step_calibrator.py")
_MEASURED_BY = (calibration, pipeline, schedule)


def measured_ranges(
    checkpoint: Path, spec: ModelSpec, cache: Path, drawn: CalibrationSet, model_opt: str = "NoOpt"
) -> dict[str, LayerStatistics]:
    """The statistics of every linear layer and convolution of a deep UNet, also of those that recipes keep.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        drawn: On which captions; recipes of the same ones share what is measured.
        model_opt: Which variant's.

    Returns:
        By layer's name.

    Raises:
        AssetError, UnavailableError: see `range_ingredients`.
    """

    def build(folder: Path) -> None:
        measured = calibration.calibrated(checkpoint, spec, drawn, model_opt)
        for which in ("channels", "steps", "weight"):
            tensors = {name: getattr(seen, which) for name, seen in measured.items()}
            save_file({name: held for name, held in tensors.items() if held is not None}, _file(folder, which))

    folder = built_once(cache, "ranges", range_ingredients(checkpoint, spec, drawn, model_opt), build)
    channels, steps, weight = (load_file(_file(folder, which)) for which in ("channels", "steps", "weight"))
    return {name: LayerStatistics(channels[name], steps.get(name), weight[name]) for name in channels}


def _file(folder: Path, which: str) -> Path:
    return folder / f"{which}.safetensors"


def range_ingredients(
    checkpoint: Path, spec: ModelSpec, drawn: CalibrationSet, model_opt: str = "NoOpt"
) -> dict[str, object]:
    """Everything that decides what the ranges of a deep UNet are.

    Raises:
        AssetError: the latent is missing or does not fit.
        UnavailableError: ModelOpt is not installed.
    """
    try:
        version = importlib.metadata.version(_MODELOPT)
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(
            "an engine in 8 bits needs NVIDIA ModelOpt to measure ranges with",
            got=f"no package {_MODELOPT}",
            fix="pip install 'pytest-sdxl[quantise]'",
        ) from None
    measured_by = {module.__name__: sha256(Path(inspect.getfile(module))) for module in _MEASURED_BY}
    return export_ingredients(checkpoint, "fp32", model_opt) | {
        "what": "ranges",
        "captions": hashlib.sha256("\n".join(drawn.captions).encode()).hexdigest(),
        "latent": hashlib.sha256(read_latent(drawn.latent, spec).numpy().tobytes()).hexdigest(),
        "modelopt": version,
        "measured_by": measured_by | {_CALIBRATOR.stem: sha256(_CALIBRATOR)},
    }
