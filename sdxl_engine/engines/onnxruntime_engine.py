"""Engine `onnxruntime`: the five ONNX files on ONNX Runtime's CPU provider, on the caller's buffers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from sdxl_engine.engines.base import Buffers, Capabilities, EngineMemory, check_buffers
from sdxl_engine.errors import EngineError, UsageError
from sdxl_engine.export.exported import exported_networks
from sdxl_engine.files import tree_files
from sdxl_engine.models.spec import ONNX_FOLDERS, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.export.calibration_set import CalibrationSet
    from sdxl_engine.export.recipes import Recipe


class OnnxRuntimeEngine:
    """One session per network; inputs and outputs are bound to the caller's memory, so nothing is copied."""

    name = "onnxruntime"

    def __init__(self, folder: Path, spec: ModelSpec, precision: str = "fp32") -> None:
        self.spec = spec
        self.networks = spec.networks
        self.device = torch.device("cpu")
        self.capabilities = Capabilities(precision=precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        # Five sessions have a thread pool each: one that spins after its work takes the cores from the next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: onnxruntime.InferenceSession(folder / sub / "model.onnx", options, providers=["CPUExecutionProvider"])
            for name, sub in ONNX_FOLDERS.items()
        }
        self._bytes = sum(path.stat().st_size for _, path in tree_files(folder))

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        check_buffers(self, network, buffers)
        session, interface = self._sessions[network], self.networks[network]
        binding = session.io_binding()
        for specs, bind in ((interface.inputs, binding.bind_input), (interface.outputs, binding.bind_output)):
            for name, spec in specs.items():
                buffer = buffers[name]
                bind(name, "cpu", 0, np.dtype(spec.dtype).type, tuple(buffer.shape), buffer.data_ptr())
        # The binding holds addresses only: the buffers must live as long as it does.
        kept = {name: buffers[name] for name in interface.inputs | interface.outputs}

        def run() -> None:
            try:
                session.run_with_iobinding(binding)
            except RuntimeError as error:
                shapes = {name: tuple(buffer.shape) for name, buffer in kept.items()}
                raise EngineError(f"ONNX Runtime failed in {network}", got=error, source=shapes) from error

        return run

    def memory(self) -> EngineMemory:
        """See `Engine.memory`: the files' bytes, which are weights; ONNX Runtime does not tell of its workspaces."""
        return EngineMemory(host=self._bytes if self._sessions else 0)

    def close(self) -> None:
        """See `Engine.close`."""
        self._sessions.clear()


def create(request: EngineRequest) -> OnnxRuntimeEngine:
    """Export the checkpoint's networks where the cache has none that fit, and load them."""
    if request.precision == "fp32":
        folder = exported_networks(request.checkpoint, request.spec, request.cache, model_opt=request.model_opt)
    else:
        from sdxl_engine.export.quantised import quantised_networks
        from sdxl_engine.export.recipes import RECIPES

        recipe = RECIPES[request.precision]
        folder = quantised_networks(
            request.checkpoint, request.spec, request.cache, recipe, _calibration(request, recipe), request.model_opt
        )
    return OnnxRuntimeEngine(folder, request.spec, request.precision)


def _calibration(request: EngineRequest, recipe: Recipe) -> CalibrationSet:
    """What ranges are measured on.

    Raises:
        UsageError: the request does not say it, or there are no captions for it.
    """
    if request.calibration is None:
        raise UsageError(
            f"{recipe.precision} needs calibration captions",
            got="a request without them",
            expected="EngineRequest.calibration, which sdxl_engine.run_engine.open_engine gives",
            source="engine onnxruntime",
        )
    return request.calibration(recipe)
