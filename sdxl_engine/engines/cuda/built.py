"""The files of engine `cuda`: what was measured when it was built, under the engine cache's content address.

`choices.json` holds the algorithms and configurations that were fastest for the batch size, `scales.json` (fp8) what
the inputs of layers are divided by. Both hold for one kind of GPU, one set of library versions and one state of the
kernels; weights are read from the checkpoint.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdxl_engine import __version__
from sdxl_engine.engines.cache import built_once
from sdxl_engine.engines.cuda import calibration, kernels, precision
from sdxl_engine.engines.cuda.calibration import exercise, measured_scales
from sdxl_engine.engines.cuda.computing import Computing
from sdxl_engine.engines.cuda.engine import CudaEngine
from sdxl_engine.errors import UsageError
from sdxl_engine.export.recipes import FP8
from sdxl_engine.files import read_json, sha256, tree_files, write_json
from sdxl_engine.models.part_config import PARTS
from sdxl_engine.models.pruned import deep_unet

if TYPE_CHECKING:
    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.export.calibration_set import CalibrationSet

WHAT = "engine cuda"
CHOICES, SCALES = "choices.json", "scales.json"
_VERSIONS = ("torch", "triton", "diffusers", "transformers")
_MEASURED_BY = (calibration, precision)


def create(request: EngineRequest) -> CudaEngine:
    """Load the engine; measure first what is not in the cache.

    Raises:
        UsageError: fp8, and the request says nothing of calibration captions.
    """
    drawn = None
    if request.precision == "fp8":
        if request.calibration is None:
            raise UsageError(
                "fp8 needs calibration captions",
                got="a request without them",
                expected="EngineRequest.calibration, which sdxl_engine.run_engine.open_engine gives",
                source="engine cuda",
            )
        drawn = request.calibration(FP8)
    name, ingredients = f"cuda-{request.precision}", _ingredients(request, drawn)
    folder = built_once(request.cache, name, ingredients, partial(_build, request, drawn))
    scales = read_json(folder / SCALES, "the scales of fp8 layers") if drawn is not None else None
    choices = read_json(folder / CHOICES, "the tuning choices of engine cuda")
    return CudaEngine(request, compute=Computing(torch.device(request.device), choices), scales=scales)


def _build(request: EngineRequest, drawn: CalibrationSet | None, folder: Path) -> None:
    compute, scales = Computing(torch.device(request.device)), None
    if drawn is not None:
        scales = measured_scales(request, drawn, compute=compute)
        write_json(folder / SCALES, scales)
    engine = CudaEngine(request, compute=compute, scales=scales)
    exercise(engine, request.batch_size)
    write_json(folder / CHOICES, compute.choices)
    engine.close()
    # Tuning leaves buffers behind.
    torch.cuda.empty_cache()


def _ingredients(request: EngineRequest, drawn: CalibrationSet | None) -> dict[str, object]:
    """Everything that decides what is measured."""
    found: dict[str, object] = {
        "what": WHAT,
        "precision": request.precision,
        "model_opt": request.model_opt,
        "batch_size": request.batch_size,
        "configs": {part: sha256(request.checkpoint / part / "config.json") for part in PARTS},
        "gpu": torch.cuda.get_device_name(request.device),
        "libraries": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "version": __version__,
        "kernels": {
            name: sha256(path)
            for name, path in tree_files(Path(inspect.getfile(kernels)).parent)
            if path.suffix == ".py"
        },
    }
    if drawn is not None:
        parts = dict.fromkeys([*PARTS, deep_unet(request.model_opt)])
        found |= {
            "weights": {
                f"{part}/{name}": sha256(path) for part in parts for name, path in tree_files(request.checkpoint / part)
            },
            "captions": hashlib.sha256(json.dumps(drawn.captions).encode()).hexdigest(),
            "latent": sha256(drawn.latent),
            "measured_by": {module.__name__: sha256(Path(inspect.getfile(module))) for module in _MEASURED_BY},
        }
    return found
