"""Are exported files whole and valid, and do they compute what the modules do that they were exported from?"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from sdxl_engine.accuracy.precision import full_float32
from sdxl_engine.errors import EngineError
from sdxl_engine.export.exported import interfaces, network_precision, torch_dtype
from sdxl_engine.files import tree_files
from sdxl_engine.models.load import load_network
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from sdxl_engine.models.spec import ModelSpec, NetworkSpec

BOUNDS = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest relative error of an output, as Frobenius norms. Both sides round at every operation, each in its own order;
a wrong weight, transposed or of another layer, is off by about one."""

SEED = 0


@dataclass(frozen=True)
class NetworkCheck:
    """One exported network.

    Args:
        network: One of `spec.NETWORKS`.
        precision: `fp16` or `fp32`.
        bytes: Of its ONNX file and the weights beside it.
        errors: Per output, the relative error against PyTorch; empty if the network was not run.
        seconds: The check took.
    """

    network: str
    precision: str
    bytes: int
    errors: dict[str, float]
    seconds: float

    @property
    def line(self) -> str:
        """For people."""
        size = f"{self.network}: {self.precision}, {self.bytes / 1e6:.1f} MB, onnx.checker passed"
        if not self.errors:
            return f"{size}, not run"
        bound = BOUNDS[self.precision]
        return f"{size}, off PyTorch by {max(self.errors.values()):.1e} (at most {bound:.0e}), {self.seconds:.1f} s"


def check_export(
    folder: Path,
    checkpoint: Path,
    spec: ModelSpec,
    precision: str,
    tell: Callable[[str], None],
    device: str | None,
    model_opt: str = "NoOpt",
) -> list[NetworkCheck]:
    """Check the five networks one after the other; each is in memory alone.

    Args:
        folder: From `export_checkpoint`.
        checkpoint: What it was exported from.
        spec: Its sizes.
        precision: `fp16` or `fp32`.
        tell: Gets a line per network.
        device: See `check_network`.
        model_opt: Which variant's networks.

    Raises:
        EngineError: see `check_network`.
    """
    found = []
    for name in NETWORKS:
        found.append(check_network(folder, name, checkpoint, spec, precision, device, model_opt))
        tell(found[-1].line)
    return found


def check_network(
    folder: Path,
    name: str,
    checkpoint: Path,
    spec: ModelSpec,
    precision: str,
    device: str | None,
    model_opt: str = "NoOpt",
) -> NetworkCheck:
    """Check one exported network.

    Args:
        folder: From `export_checkpoint`.
        name: One of `spec.NETWORKS`.
        checkpoint: What it was exported from.
        spec: Its sizes.
        precision: Of the export, `fp16` or `fp32`.
        device: Where PyTorch runs the network, `cpu` or `cuda`, for one image and in the network's own precision, to
            compare with ONNX Runtime on the CPU; with None, only onnx.checker looks at the file.
        model_opt: Which variant's network.

    Raises:
        EngineError: the file is not valid, ONNX Runtime does not run it, or it computes something else.
    """
    began = time.monotonic()
    path = folder / ONNX_FOLDERS[name] / "model.onnx"
    try:
        # By its path: as a message in memory it could not be above 2 GB.
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, OSError) as error:
        raise EngineError(f"onnx.checker refuses the exported {name}", got=error, source=path) from error
    own = network_precision(spec, name, precision)
    errors: dict[str, float] = {}
    if device is not None:
        errors = _run(path, name, checkpoint, spec, precision, device, model_opt)
    # Not `>`: it does not hold of NaN.
    if not all(error <= BOUNDS[own] for error in errors.values()):
        raise EngineError(
            f"the exported {name} computes something else than the checkpoint",
            got=", ".join(f"{output} off by {error:.1e}" for output, error in errors.items()),
            expected=f"at most {BOUNDS[own]:.0e}",
            source=path,
        )
    size = sum(each.stat().st_size for _, each in tree_files(path.parent))
    return NetworkCheck(name, own, size, errors, time.monotonic() - began)


def _run(
    path: Path, name: str, checkpoint: Path, spec: ModelSpec, precision: str, device: str, model_opt: str
) -> dict[str, float]:
    """Per output, how far ONNX Runtime is from PyTorch; one of them is in memory at a time."""
    interface = interfaces(spec, precision)[name]
    network = load_network(checkpoint, name, torch_dtype(spec, name, precision), model_opt)
    inputs = seeded_inputs(network, interface, spec, interface.rows(1))
    wanted = _by_torch(network, inputs, device)
    del network
    gc.collect()
    return _errors(interface, wanted, _by_onnxruntime(name, path, inputs))


def seeded_inputs(
    network: nn.Module, interface: NetworkSpec, spec: ModelSpec, rows: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Plausible inputs in the dtypes of an interface, the same at every call.

    Args:
        network: The module; a text encoder's configuration has its vocabulary.
        interface: Names, shapes and dtypes.
        spec: The sizes of the model.
        rows: Of the batch axis.
    """
    rng = np.random.default_rng(SEED)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in interface.inputs.items():
        shape = tensor.at(rows)
        if name == "input_ids":
            encoder: Any = network.get_submodule("encoder")
            config = encoder.config
            values: np.ndarray[Any, Any] = rng.integers(0, config.vocab_size, shape)
            values[:, spec.tokens // 4 :] = config.eos_token_id
        elif name == "timestep":
            values = np.array([651.0])
        elif name == "time_ids":
            values = np.tile(np.array(spec.time_ids), (rows, 1))
        else:
            values = rng.standard_normal(shape, dtype=np.float32)
        found[name] = values.astype(tensor.dtype)
    return found


def _by_torch(network: nn.Module, inputs: dict[str, np.ndarray[Any, Any]], device: str) -> list[np.ndarray[Any, Any]]:
    with torch.inference_mode(), full_float32(device):
        outputs = network.to(device)(*(torch.from_numpy(array).to(device) for array in inputs.values()))
    return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _by_onnxruntime(name: str, path: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The graph as it is in the file. Optimised for the CPU, weights in float16 would be kept in float32 besides.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs: list[np.ndarray[Any, Any]] = session.run(None, inputs)
    except RuntimeError as error:
        raise EngineError(f"ONNX Runtime does not run the exported {name}", got=error, source=path) from error
    return outputs


def _errors(
    interface: NetworkSpec, wanted: list[np.ndarray[Any, Any]], got: list[np.ndarray[Any, Any]]
) -> dict[str, float]:
    found = {}
    for name, expected, array in zip(interface.outputs, wanted, got, strict=True):
        exact = expected.astype(np.float64)
        found[name] = float(np.linalg.norm(array - exact) / np.linalg.norm(exact))
    return found
