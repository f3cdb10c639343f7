"""Build one plan: an ONNX file to a strongly typed network, to a serialised engine with its manifest beside it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.tensorrt.api import LIBRARY, trt
from sdxl_engine.engines.tensorrt.gpu import find_gpu, free_memory, use_gpu
from sdxl_engine.engines.tensorrt.job import TF32
from sdxl_engine.engines.tensorrt.messages import BuildProgress, Messages
from sdxl_engine.engines.tensorrt.names import log_path, manifest_path
from sdxl_engine.engines.tensorrt.plan import Manifest
from sdxl_engine.engines.tensorrt.target import capability_member
from sdxl_engine.engines.tensorrt.tensors import engine_rows, engine_tensors, network_tensors, require_tensors
from sdxl_engine.engines.tensorrt.workspace import workspace_bytes
from sdxl_engine.errors import EngineError
from sdxl_engine.files import sha256, write_json, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sdxl_engine.engines.tensorrt.job import BuildJob


def build(job: BuildJob, tell: Callable[[str], None]) -> Manifest:
    """Build a plan and write it and its manifest, each whole or not at all.

    Args:
        job: What to build.
        tell: Called with a line for each phase.

    Raises:
        UsageError: the workspace asked for does not fit in free memory.
        EngineError: TensorRT does not read the ONNX file, sees another network in it, or does not build it.
    """
    if job.device is not None:
        use_gpu(job.device)
    limit = workspace_bytes(job.workspace_gib, free_memory(job.device), _onnx_bytes(job.onnx), job.device)
    job.plan.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log_path(job.plan).open("w", encoding="utf-8") as log:
        messages = Messages(log)
        builder = trt.Builder(messages)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        _parse(network, messages, job)
        config = _configure(builder, network, job, limit)
        config.progress_monitor = BuildProgress(tell)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise EngineError(
                f"{job.key.network}: TensorRT did not build the plan",
                got=messages.errors,
                source=log_path(job.plan),
                fix="if memory is short: a smaller --batch-size for this network, or a smaller --workspace",
            )
        _keep_timing_cache(config, job)
        seconds = time.monotonic() - began
        if job.device is not None and _runs_here(job):
            _require_own(serialized, messages, job)
    # In this order: whatever is cut short leaves a plan without a manifest, which is refused.
    manifest_path(job.plan).unlink(missing_ok=True)
    with written_whole(job.plan) as aside:
        aside.write_bytes(serialized)
    manifest = Manifest(
        key=job.key,
        sha256=sha256(job.plan),
        bytes=job.plan.stat().st_size,
        tensors=job.tensors,
        workspace_bytes=limit,
        build_s=round(seconds, 3),
    )
    write_json(manifest_path(job.plan), manifest.to_json())
    return manifest


def _onnx_bytes(onnx: Path) -> int:
    """The ONNX file and the weights beside it, which the builder holds too."""
    return sum(path.stat().st_size for path in onnx.parent.iterdir())


def _parse(network: trt.INetworkDefinition, messages: Messages, job: BuildJob) -> None:
    parser = trt.OnnxParser(network, messages)
    if not parser.parse_from_file(str(job.onnx)):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise EngineError(f"{job.key.network}: TensorRT does not read the ONNX file", got=errors, source=job.onnx)
    require_tensors(job.key.network, network_tensors(network), job.tensors, job.onnx)


def _configure(builder: trt.Builder, network: trt.INetworkDefinition, job: BuildJob, limit: int) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    # TensorRT's default is on, which would make float32 products ones of 10 bits.
    if TF32 in job.key.flags:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        shape = tuple(tensor.shape)
        if -1 in shape:
            profile.set_shape(tensor.name, *((rows, *shape[1:]) for rows in job.key.rows))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{job.key.network}: TensorRT refuses the profile", got=job.key.rows, source=job.onnx)
    if LIBRARY.ahead_of_time:
        _set_compute_capabilities(config, job.key.compute_capabilities)
    if job.timing_cache is not None:
        _load_timing_cache(config, job.timing_cache)
    return config


def _set_compute_capabilities(config: Any, capabilities: tuple[str, ...]) -> None:
    """TensorRT-RTX alone has these calls, so TensorRT's type stubs do not."""
    config.num_compute_capabilities = len(capabilities)
    for number, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(LIBRARY.module.ComputeCapability, capability_member(capability)), number)


def _load_timing_cache(config: trt.IBuilderConfig, file: Path) -> None:
    # TensorRT itself refuses a cache of another version or GPU; the build then starts an empty one.
    with suppress(FileNotFoundError):
        if config.set_timing_cache(config.create_timing_cache(file.read_bytes()), ignore_mismatch=False):
            return
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timing_cache(config: trt.IBuilderConfig, job: BuildJob) -> None:
    if job.timing_cache is not None:
        with written_whole(job.timing_cache) as aside:
            aside.write_bytes(config.get_timing_cache().serialize())


def _runs_here(job: BuildJob) -> bool:
    gpu = find_gpu(job.device or 0)
    return gpu is not None and gpu.compute_capability in job.key.compute_capabilities


def _require_own(serialized: trt.IHostMemory, messages: Messages, job: BuildJob) -> None:
    """Load the plan on the GPU here, and compare what it says of itself with what was asked for."""
    engine = trt.Runtime(messages).deserialize_cuda_engine(serialized)
    if engine is None:
        raise EngineError(f"{job.key.network}: TensorRT does not load its own plan", got=messages.errors)
    require_tensors(job.key.network, engine_tensors(engine), job.tensors, job.plan)
    if engine_rows(engine) != job.key.rows:
        raise EngineError(
            f"{job.key.network}: the plan has another profile", got=engine_rows(engine), expected=job.key.rows
        )
