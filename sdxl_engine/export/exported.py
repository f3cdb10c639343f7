"""The ONNX files of a checkpoint in one precision, exported once and found again by what they were made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdxl_engine.engines.base import with_floats
from sdxl_engine.engines.cache import MANIFEST, built_once
from sdxl_engine.errors import UsageError
from sdxl_engine.export import onnx as exporter
from sdxl_engine.files import read_json, sha256, tree_files
from sdxl_engine.models import load, pruned, text, unet_split
from sdxl_engine.models.spec import ONNX_FOLDERS

if TYPE_CHECKING:
    from sdxl_engine.models.spec import ModelSpec, NetworkSpec

PRECISIONS = {"fp32": "float32", "fp16": "float16"}
_BUILT_WITH = ("torch", "onnx", "onnxscript", "diffusers", "transformers")
_BUILT_BY = (exporter, load, text, unet_split)
_PARTS = ("text_encoder", "text_encoder_2", pruned.FULL, "vae")


def interfaces(spec: ModelSpec, precision: str) -> dict[str, NetworkSpec]:
    """Names, shapes and dtypes of the tensors of each exported network.

    In fp16, weights and floating-point tensors are float16; the timestep stays float32 (see `with_floats`), and so does
    the whole decoder of a checkpoint whose decoder overflows in float16.

    Raises:
        UsageError: networks are not exported in this precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"there is no ONNX export in {precision}",
            got=precision,
            expected=" or ".join(PRECISIONS) + "; int8 and fp8 need ONNX files with quantised layers",
        )
    networks = with_floats(spec.networks, PRECISIONS[precision])
    if spec.upcast_decoder:
        networks["vae"] = spec.networks["vae"]
    return networks


def network_precision(spec: ModelSpec, network: str, precision: str) -> str:
    """What one network computes in where the whole is asked for in `precision`."""
    return "fp32" if network == "vae" and spec.upcast_decoder else precision


def exported_networks(
    checkpoint: Path, spec: ModelSpec, cache: Path, precision: str = "fp32", model_opt: str = "NoOpt"
) -> Path:
    """The folder with `<network's folder>/model.onnx` of each network, exported on first use.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
        precision: `fp32`, or `fp16`, see `interfaces`.
        model_opt: Which variant's networks; those of NoOpt and DeepCache are the same.
    """
    tensors = interfaces(spec, precision)
    parts = dict.fromkeys([*_PARTS, pruned.deep_unet(model_opt)])
    ingredients = {
        "weights": {f"{part}/{name}": sha256(path) for part in parts for name, path in tree_files(checkpoint / part)},
        "opset": exporter.OPSET,
        "precision": precision,
        "libraries": {name: importlib.metadata.version(name) for name in _BUILT_WITH},
        "exporter": {module.__name__: sha256(Path(inspect.getfile(module))) for module in _BUILT_BY},
    }

    def build(folder: Path) -> None:
        dtype, of_decoder = (
            getattr(torch, PRECISIONS[network_precision(spec, part, precision)]) for part in ("unet", "vae")
        )
        networks = load.load_networks(checkpoint, dtype, of_decoder, model_opt)
        exporter.export_networks(networks, tensors, folder)

    return built_once(cache, f"onnx-{precision}", ingredients, build)


def onnx_digest(folder: Path, network: str) -> str:
    """Hex SHA-256 over a network's ONNX file and the weights that lie beside it, by the export's manifest.

    Args:
        folder: From `exported_networks`, which has compared the files with the manifest.
        network: One of `spec.NETWORKS`.
    """
    digests: dict[str, str] = read_json(folder / MANIFEST, "the manifest of the ONNX export")["sha256"]
    own = {name: value for name, value in digests.items() if name.startswith(f"{ONNX_FOLDERS[network]}/")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
