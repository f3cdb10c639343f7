"""The ONNX files of a checkpoint with a quantised UNet, made once and found again by what they were made from."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.engines.cache import built_once
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export import quantised_layers
from sdxl_engine.export.exported import export_ingredients
from sdxl_engine.export.ranges import measured_ranges, range_ingredients
from sdxl_engine.export.recipes import RECIPES
from sdxl_engine.files import sha256
from sdxl_engine.models.load import load_network
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from sdxl_engine.models.spec import ModelSpec


def quantised_networks(
    checkpoint: Path, spec: ModelSpec, cache: Path, precision: str, model_opt: str = "NoOpt"
) -> Path:
    """The folder with `<network's folder>/model.onnx` of each network: both UNets in 8 bits, the others in fp32.

    Args:
        checkpoint: A diffusers-layout folder that there are calibration captions for.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        precision: One of `RECIPES`.
        model_opt: Which variant's networks.

    Raises:
        UsageError: there are no calibration captions for the checkpoint; UnavailableError: ModelOpt is not installed.
    """
    recipe = RECIPES[precision]
    # The shallow UNet's layers are the full one's, in every variant.
    measured_on = {"shallow_unet": "NoOpt", "unet": model_opt}
    ingredients = export_ingredients(checkpoint, precision, model_opt) | {
        "opset": recipe.opset,
        "recipe": recipe.to_json(),
        "ranges": {name: range_ingredients(checkpoint, recipe, variant) for name, variant in measured_on.items()},
        "layers": sha256(Path(inspect.getfile(quantised_layers))),
    }

    def build(folder: Path) -> None:
        for name in NETWORKS:
            # Loaded anew each time: an export takes the network's weights with it, and both UNets would share them.
            network = load_network(checkpoint, name, model_opt=model_opt)
            if name in measured_on:
                ranges = measured_ranges(checkpoint, spec, cache, recipe, measured_on[name])
                quantised_layers.replace_layers(network.get_submodule("unet"), recipe.layers(ranges), precision)
            exporter.export_network(
                network, spec.networks[name], folder / ONNX_FOLDERS[name] / "model.onnx", recipe.opset
            )

    return built_once(cache, f"onnx-{precision}", ingredients, build)
