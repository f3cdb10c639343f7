"""The ONNX files of a checkpoint in one precision, exported once and found again by what they were made from."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import inspect
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdxl_engine.engines.base import with_floats
from sdxl_engine.engines.cache import MANIFEST, built_once, found_built
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.export import onnx as exporter
from sdxl_engine.files import read_json, sha256, tree_files
from sdxl_engine.models import load, pruned, text, unet_split, weights
from sdxl_engine.models.part_config import PARTS
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.models.spec import ModelSpec, NetworkSpec

PRECISIONS = {"fp32": "float32", "fp16": "float16"}
_BUILT_WITH = ("torch", "onnx", "onnxscript", "diffusers", "transformers")
_BUILT_BY = (exporter, load, text, unet_split, weights)
_STORED = {"F16", "F32"}
WHAT = "ONNX export"


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
            expected=" or ".join(PRECISIONS) + "; int8 and fp8 are exported for engine onnxruntime",
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
        model_opt: Which variant's networks; those of NoOpt and DeepCache are the same, and those of DeepCachePruned but
            for the deep UNet: where the others lie in the cache already, it alone is exported.
    """
    name = f"onnx-{precision}"

    def build(folder: Path) -> None:
        others = None
        if pruned.deep_unet(model_opt) != pruned.FULL:
            others = found_built(cache, name, export_ingredients(checkpoint, precision))
        export_checkpoint(checkpoint, spec, precision, folder, model_opt=model_opt, others=others)

    return built_once(cache, name, export_ingredients(checkpoint, precision, model_opt), build)


def export_ingredients(checkpoint: Path, precision: str, model_opt: str = "NoOpt") -> dict[str, object]:
    """Everything that decides what the export of a checkpoint is."""
    parts = _parts(model_opt)
    return {
        "what": WHAT,
        "weights": {f"{part}/{name}": sha256(path) for part in parts for name, path in tree_files(checkpoint / part)},
        "opset": exporter.OPSET,
        "precision": precision,
        "libraries": {name: importlib.metadata.version(name) for name in _BUILT_WITH},
        "exporter": {module.__name__: sha256(Path(inspect.getfile(module))) for module in _BUILT_BY},
    }


def _parts(model_opt: str) -> list[str]:
    """Folders of the checkpoint that hold a variant's networks."""
    return list(dict.fromkeys([*PARTS, pruned.deep_unet(model_opt)]))


def export_checkpoint(
    checkpoint: Path,
    spec: ModelSpec,
    precision: str,
    folder: Path,
    tell: Callable[[str], None] = lambda _: None,
    model_opt: str = "NoOpt",
    others: Path | None = None,
) -> None:
    """Write `<network's folder>/model.onnx` of each network, one after the other: one is in memory at a time.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        precision: `fp32` or `fp16`; see `interfaces`.
        folder: Empty.
        tell: Gets a line per network.
        model_opt: Which variant's networks.
        others: An export, on the same disk, to link every network but the deep UNet from.

    Raises:
        AssetError: weights are missing, or stored in a dtype that is neither; there is no room for the files.
        UsageError: networks are not exported in this precision.
    """
    tensors = interfaces(spec, precision)
    _check_weights(checkpoint, precision, folder, model_opt)
    for name in NETWORKS:
        if others is not None and name != "unet":
            shutil.copytree(others / ONNX_FOLDERS[name], folder / ONNX_FOLDERS[name], copy_function=os.link)
            continue
        began = time.monotonic()
        network = load.load_network(checkpoint, name, torch_dtype(spec, name, precision), model_opt)
        exporter.export_network(network, tensors[name], folder / ONNX_FOLDERS[name] / "model.onnx")
        del network
        gc.collect()
        tell(f"{name}: exported in {time.monotonic() - began:.1f} s")


def torch_dtype(spec: ModelSpec, network: str, precision: str) -> torch.dtype:
    """Of one network's weights, see `network_precision`."""
    dtype: torch.dtype = getattr(torch, PRECISIONS[network_precision(spec, network, precision)])
    return dtype


def _check_weights(checkpoint: Path, precision: str, folder: Path, model_opt: str) -> None:
    """Dtypes of the stored weights, and room for the exported ones, before minutes are spent."""
    values = 0
    for part in _parts(model_opt):
        sizes = weights.weight_sizes(checkpoint / part)
        if not sizes.keys() <= _STORED:
            raise AssetError(
                f"the weights of {part} are stored in a dtype that cannot be exported",
                got=", ".join(sorted(sizes.keys() - _STORED)),
                expected="F16 or F32",
                source=checkpoint / part,
                fix="take the checkpoint in fp16 or fp32",
            )
        # Of the autoencoder, the decoder alone is exported.
        values += sum(sizes.values()) if part != "vae" else 0
    needed, free = values * getattr(torch, PRECISIONS[precision]).itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise AssetError(
            "there is no room for the exported networks",
            got=f"{free / 1e9:.2f} GB free",
            expected=f"at least {needed / 1e9:.2f} GB",
            source=folder.parent,
            fix="make room, or name a folder on another disk",
        )


def onnx_digest(folder: Path, network: str) -> str:
    """Hex SHA-256 over a network's ONNX file and the weights that lie beside it, by the export's manifest.

    Args:
        folder: From `exported_networks`, which has compared the files with the manifest.
        network: One of `spec.NETWORKS`.
    """
    digests: dict[str, str] = read_json(folder / MANIFEST, "the manifest of the ONNX export")["sha256"]
    own = {name: value for name, value in digests.items() if name.startswith(f"{ONNX_FOLDERS[network]}/")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
