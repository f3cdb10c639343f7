"""The ONNX files of a checkpoint with a quantised UNet, made once and found again by what they were made from."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.engines.cache import built_once
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export import quantised_layers, smoothing
from sdxl_engine.export.exported import export_ingredients
from sdxl_engine.export.ranges import measured_ranges, range_ingredients
from sdxl_engine.files import sha256
from sdxl_engine.models.load import load_network
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from sdxl_engine.export.calibration_set import CalibrationSet
    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.export.statistics import LayerStatistics
    from sdxl_engine.models.spec import ModelSpec


def quantised_networks(
    checkpoint: Path, spec: ModelSpec, cache: Path, recipe: Recipe, drawn: CalibrationSet, model_opt: str = "NoOpt"
) -> Path:
    """The folder with `<network's folder>/model.onnx` of each network: both UNets in 8 bits, the others in fp32.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        recipe: How.
        drawn: What ranges are measured on.
        model_opt: Which variant's networks.

    Raises:
        AssetError, UnavailableError: see `range_ingredients`.
    """
    # The shallow UNet's layers are the full one's, in every variant.
    measured_on = {"shallow_unet": "NoOpt", "unet": model_opt}
    ingredients = export_ingredients(checkpoint, recipe.precision, model_opt) | {
        "opset": recipe.opset,
        "recipe": recipe.to_json(),
        "ranges": {name: range_ingredients(checkpoint, spec, drawn, variant) for name, variant in measured_on.items()},
        "layers": [sha256(Path(inspect.getfile(module))) for module in (quantised_layers, smoothing)],
    }

    def build(folder: Path) -> None:
        for name in NETWORKS:
            # Loaded anew each time: an export takes the network's weights with it, and both UNets would share them.
            network = load_network(checkpoint, name, model_opt=model_opt)
            if name in measured_on:
                statistics = measured_ranges(checkpoint, spec, cache, drawn, measured_on[name])
                quantise(network.get_submodule("unet"), statistics, recipe)
            exporter.export_network(
                network, spec.networks[name], folder / ONNX_FOLDERS[name] / "model.onnx", recipe.opset
            )

    return built_once(cache, f"onnx-{recipe.precision}", ingredients, build)


def quantise(unet: nn.Module, statistics: Mapping[str, LayerStatistics], recipe: Recipe) -> None:
    """Put layers that round in the place of a UNet's own, in the module itself.

    Args:
        unet: On the CPU, in fp32.
        statistics: Of every layer.
        recipe: Which, and how.
    """
    if recipe.alpha is not None:
        statistics = smoothing.smooth(unet, statistics, recipe.alpha, recipe.keeps)
    quantised_layers.replace_layers(unet, recipe.layers(statistics), recipe.precision)
