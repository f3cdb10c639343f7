"""Build the five plans of one configuration, each in its own child process; keep those that already fit."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sdxl_engine.engines.tensorrt.gpu import device_number, find_gpu
from sdxl_engine.engines.tensorrt.job import STRONGLY_TYPED, TF32, BuildJob
from sdxl_engine.engines.tensorrt.library import Library, load
from sdxl_engine.engines.tensorrt.names import TIMING_CACHE, PlanSet, manifest_path
from sdxl_engine.engines.tensorrt.parent import CHILD, build_in_child
from sdxl_engine.engines.tensorrt.plan import PlanKey, check
from sdxl_engine.engines.tensorrt.target import Target, target_of
from sdxl_engine.engines.tensorrt.tensors import expected_tensors
from sdxl_engine.errors import AssetError, EngineError
from sdxl_engine.export.exported import exported_networks, interfaces, network_precision, onnx_digest
from sdxl_engine.files import write_json, written_whole
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sdxl_engine.models.spec import ModelSpec

BUILT, KEPT, LINKED, FAILED = "built", "kept", "linked", "failed"


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What to build.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: `build/engines`.
        model_opt: In the plans' names; which networks they are.
        scenario: In the plans' names.
        precision: `fp16` or `fp32`; a decoder that overflows in fp16 stays in fp32.
        images: Largest batch of each network, in images.
        device: `auto`, `cuda`, `cuda:<number>`.
        workspace_gib: Limit of the builder's workspace; None chooses by free memory.
        compute_capabilities: To build for ahead of time; none builds for the GPU here.
        force: Build what is already there, too.
    """

    checkpoint: Path
    spec: ModelSpec
    cache: Path
    model_opt: str
    scenario: str
    precision: str
    images: Mapping[str, int]
    device: str = "auto"
    workspace_gib: float | None = None
    compute_capabilities: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What came of one plan.

    Args:
        network: One of `spec.NETWORKS`.
        outcome: `built`; `kept`, it was there; `linked`, it is that of another variant; `failed`.
        plan: Its file.
        seconds: Of wall time, the child's start included.
        plan_bytes: Its size.
        peak_host_bytes: Peak resident memory of the child; None unless it was built.
        reason: Why it was built, or why it failed.
    """

    network: str
    outcome: str
    plan: Path
    seconds: float
    plan_bytes: int = 0
    peak_host_bytes: int | None = None
    reason: str = ""


def plan_key(
    spec: ModelSpec, onnx: Path, network: str, precision: str, images: int, library: Library, target: Target
) -> PlanKey:
    """What a plan of one network must have been made from and for.

    Args:
        spec: The model's sizes.
        onnx: Folder of the ONNX export.
        network: One of `spec.NETWORKS`.
        precision: Asked for; the network's own may be fp32, see `network_precision`.
        images: Largest batch.
        library: In use.
        target: GPU or compute capabilities.
    """
    own = network_precision(spec, network, precision)
    # The benchmark lets a decoder in fp32 use TF32 (`config_kwargs["tf32"]` of its builder); where all of the model is
    # asked for in fp32, it shall be float32.
    flags = (STRONGLY_TYPED,) if own == precision else (STRONGLY_TYPED, TF32)
    interface = spec.networks[network]
    most = interface.rows(images)
    return PlanKey(
        network=network,
        onnx_sha256=onnx_digest(onnx, network),
        precision=own,
        library=library.name,
        version=library.version,
        gpu=target.gpu,
        compute_capabilities=target.compute_capabilities,
        flags=flags,
        rows=(interface.rows(1), most, most),
    )


def generate(request: GenerateRequest, tell: Callable[[str], None], command: Sequence[str] = CHILD) -> list[PlanReport]:
    """Export the networks where need be, and build the plans that are missing or do not fit.

    A network that fails does not keep the others from being built; an option that cannot work ends it at once, and what
    was built before it is kept.

    Args:
        request: What to build.
        tell: Called with lines of progress and, at once, with each outcome.
        command: See `build_in_child`.

    Raises:
        UnavailableError: there is no TensorRT, or it needs a GPU and there is none.
        UsageError: what is asked for cannot be built here, or the workspace does not fit.
    """
    library = load()
    number = device_number(request.device)
    gpu = find_gpu(number)
    target = target_of(library, gpu, request.compute_capabilities)
    tensors = interfaces(request.spec, request.precision)
    tell(f"exporting {request.checkpoint} in {request.precision}, or finding its ONNX files")
    onnx = exported_networks(request.checkpoint, request.spec, request.cache, request.precision, request.model_opt)
    plans = PlanSet(request.cache, request.checkpoint, request.scenario, request.model_opt)
    folder = plans.folder(target.system)
    folder.mkdir(parents=True, exist_ok=True)
    reports = []
    for network in NETWORKS:
        images = request.images[network]
        key = plan_key(request.spec, onnx, network, request.precision, images, library, target)
        job = BuildJob(
            key=key,
            onnx=onnx / ONNX_FOLDERS[network] / "model.onnx",
            plan=folder / plans.file_name(network, images, key.precision),
            tensors=expected_tensors(tensors[network]),
            device=None if gpu is None else number,
            workspace_gib=request.workspace_gib,
            timing_cache=None if library.ahead_of_time else folder / TIMING_CACHE,
        )
        # Of this variant and of others, whose networks may be the same.
        there = tuple(folder.glob(plans.file_name(network, images, key.precision, "*")))
        with FileLock(folder / ".lock"):
            report = _one(job, None if request.force else there, tell, command)
        tell(outcome_line(report))
        reports.append(report)
    return reports


def _one(
    job: BuildJob, there: Sequence[Path] | None, tell: Callable[[str], None], command: Sequence[str]
) -> PlanReport:
    """Keep, link or build one plan; None for the plans that are there builds it whatever is there."""
    began = time.monotonic()

    def report(outcome: str, **more: Any) -> PlanReport:
        seconds = round(time.monotonic() - began, 3)
        return PlanReport(network=job.key.network, outcome=outcome, plan=job.plan, seconds=seconds, **more)

    reason = "there was none" if there is not None else "asked for, whatever was there"
    # The plan itself first: that of another variant is looked at only if it does not fit.
    for plan in sorted(there or (), key=lambda plan: plan != job.plan):
        try:
            manifest = check(plan, job.key, "")
        except AssetError as error:
            if plan == job.plan:
                reason = f"{error.what}, got {error.parts.get('got')}"
            continue
        if plan == job.plan:
            return report(KEPT, plan_bytes=manifest.bytes)
        _link(plan, job.plan)
        write_json(manifest_path(job.plan), manifest.to_json())
        return report(LINKED, plan_bytes=manifest.bytes, reason=f"it is that of {plan.name}")
    try:
        built = build_in_child(job, tell, command)
    except EngineError as error:
        return report(FAILED, reason=str(error))
    return report(BUILT, plan_bytes=built.manifest["bytes"], peak_host_bytes=built.peak_host_bytes, reason=reason)


def _link(source: Path, target: Path) -> None:
    """A second name for the same file; a copy where the file system has no links."""
    manifest_path(target).unlink(missing_ok=True)
    with written_whole(target) as aside:
        aside.unlink()
        try:
            os.link(source, aside)
        except OSError:
            shutil.copyfile(source, aside)


def outcome_line(report: PlanReport) -> str:
    """One line for people."""
    if report.outcome == FAILED:
        return f"{report.network}: FAILED after {report.seconds:.1f} s\n{report.reason}"
    size = f"{report.plan_bytes / 1e6:.1f} MB"
    if report.outcome == KEPT:
        return f"{report.network}: kept, the plan there fits ({size})"
    if report.outcome == LINKED:
        return f"{report.network}: linked, {report.reason} ({size})"
    peak = (report.peak_host_bytes or 0) / 1e6
    return f"{report.network}: built in {report.seconds:.1f} s, {size}, peak host memory {peak:.0f} MB; {report.reason}"
