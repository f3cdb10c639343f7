"""Find the five plans of a run, and refuse those that do not fit."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from sdxl_engine.engines.tensorrt.generate import plan_key
from sdxl_engine.engines.tensorrt.gpu import device_number, find_gpu
from sdxl_engine.engines.tensorrt.library import Library, load
from sdxl_engine.engines.tensorrt.names import PlanSet, model_label
from sdxl_engine.engines.tensorrt.plan import check
from sdxl_engine.engines.tensorrt.target import AHEAD, Target, capability_member, target_of
from sdxl_engine.errors import AssetError, UnavailableError
from sdxl_engine.export.exported import exported_networks, network_precision
from sdxl_engine.models.spec import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.engines.base import EngineRequest

SCENARIO = "Offline"
"""In the plans' names; the plans of all scenarios are the same."""


def find_plans(request: EngineRequest) -> dict[str, Path]:
    """The plan of each network: the one for the smallest batch that is large enough.

    Raises:
        UnavailableError: there is no TensorRT or no GPU.
        UsageError: TensorRT-RTX does not run on this GPU.
        AssetError: a plan is missing, or what there is does not fit; the message says why.
    """
    library = load()
    gpu = find_gpu(device_number(request.device))
    if gpu is None:
        raise UnavailableError(
            "the engine tensorrt needs a GPU",
            got="no GPU that CUDA can use",
            expected="an NVIDIA GPU, its driver and cuda-python",
            source=f"device {request.device}",
        )
    target = target_of(library, gpu)
    onnx = exported_networks(request.checkpoint, request.spec, request.cache, request.precision, request.model_opt)
    plans = PlanSet(request.cache, request.checkpoint, SCENARIO, request.model_opt)
    folders = [plans.folder(system) for system in _systems(request.cache, library, target)]
    fix = _command(request)
    found = {}
    for network in NETWORKS:
        key = plan_key(request.spec, onnx, network, request.precision, request.batch_size, library, target)
        pattern = plans.file_name(network, "*", network_precision(request.spec, network, request.precision))
        candidates = sorted((path for folder in folders for path in folder.glob(pattern)), key=_images)
        large = [path for path in candidates if _images(path) >= request.batch_size]
        exact = folders[0] / plans.file_name(network, request.batch_size, key.precision)
        refused: AssetError | None = None
        for path in large or candidates or [exact]:
            try:
                check(path, key, fix)
            except AssetError as error:
                refused = refused or error
            else:
                found[network] = path
                break
        else:
            assert refused is not None
            raise refused
    return found


def _systems(engines: Path, library: Library, target: Target) -> list[str]:
    """Names of the folders that may hold plans for this GPU; of several ahead of time, the narrowest first."""
    if not library.ahead_of_time:
        return [target.system]
    own = capability_member(target.compute_capabilities[0]).lower()
    there = [path.name for path in engines.glob(f"{AHEAD}-*") if own in path.name.split("-")]
    return [target.system, *sorted(set(there) - {target.system}, key=len)]


def _images(plan: Path) -> int:
    """The batch in a plan's name."""
    match = re.search(r"-gpu-b(\d+)-", plan.name)
    return int(match[1]) if match else 0


def _command(request: EngineRequest) -> str:
    model = model_label(request.checkpoint) or str(request.checkpoint)
    words = ["sdxl-engine", "generate-engines", "--engine", "tensorrt", "--model", model]
    words += ["--model-opt", request.model_opt, "--precision", request.precision]
    words += ["--batch-size", str(request.batch_size), "--build-dir", str(request.cache.parent)]
    return shlex.join(words)
