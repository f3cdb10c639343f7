"""The ONNX files of a checkpoint with a quantised UNet, made once and found again by what they were made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine import pipeline, schedule
from sdxl_engine.engines.cache import built_once
from sdxl_engine.errors import UnavailableError
from sdxl_engine.export import calibration, quantised_layers
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export.exported import export_ingredients
from sdxl_engine.export.recipes import INT8
from sdxl_engine.files import sha256
from sdxl_engine.models import pruned
from sdxl_engine.models.load import load_network
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from sdxl_engine.models.spec import ModelSpec

_MODELOPT = "nvidia-modelopt"


def quantised_networks(checkpoint: Path, spec: ModelSpec, cache: Path, model_opt: str = "NoOpt") -> Path:
    """The folder with `<network's folder>/model.onnx` of each network: both UNets in int8, the others in fp32.

    Args:
        checkpoint: A diffusers-layout folder that there are calibration captions for.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        model_opt: Which variant's networks.

    Raises:
        UsageError: there are no calibration captions for the checkpoint; UnavailableError: ModelOpt is not installed.
    """
    captions = calibration.calibration_captions(checkpoint, INT8)
    try:
        version = importlib.metadata.version(_MODELOPT)
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(
            "int8 needs NVIDIA ModelOpt to measure ranges with",
            got=f"no package {_MODELOPT}",
            fix="pip install 'pytest-sdxl[quantise]'",
        ) from None
    built_by = (calibration, quantised_layers, pipeline, schedule)
    ingredients = export_ingredients(checkpoint, INT8.precision, model_opt) | {
        "recipe": INT8.to_json(),
        "calibration_captions": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "modelopt": version,
        "calibration": {module.__name__: sha256(Path(inspect.getfile(module))) for module in built_by},
    }

    def build(folder: Path) -> None:
        layers = {"shallow_unet": calibration.calibrated(checkpoint, spec, INT8)}
        layers["unet"] = (
            layers["shallow_unet"]
            if pruned.deep_unet(model_opt) == pruned.FULL
            else calibration.calibrated(checkpoint, spec, INT8, model_opt)
        )
        for name in NETWORKS:
            # Loaded anew each time: an export takes the network's weights with it, and both UNets would share them.
            network = load_network(checkpoint, name, model_opt=model_opt)
            if name in layers:
                quantised_layers.replace_layers(network.get_submodule("unet"), layers[name])
            exporter.export_network(network, spec.networks[name], folder / ONNX_FOLDERS[name] / "model.onnx")

    return built_once(cache, f"onnx-{INT8.precision}", ingredients, build)
