"""The configuration of the benchmark for one machine. What each key means stands beside its field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.registry import AUTO, ENGINES
from sdxl_engine.systems.keys import FLAG, PATTERNS, TEXT, batches, choice, key, number, span, whole
from sdxl_engine.systems.machine import GIB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.systems.machine import Gpu, Machine

SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
"""Of the UNets; with the 8-bit ones the other networks run in fp16 or fp32, as the engine does it."""

LARGEST_BATCH = 1024
LARGEST_MEMORY_GIB = 16384
LARGEST_QPS = 1e6


@dataclass(frozen=True, kw_only=True)
class Match:
    """The table `[match]`: which machines a file is for."""

    gpu_names: tuple[str, ...] = key(
        PATTERNS,
        "NVML's product names; `*` and `?` are wildcards. Every visible GPU must have one of them",
        default=(),
        left_out="the file is for machines without a GPU",
    )
    gpu_count: int = key(
        whole(1, 1024), "how many GPUs are visible", default=0, left_out="only with `cpu`: required with `gpu_names`"
    )
    gpu_memory_gib: tuple[float, float] | None = key(
        span(LARGEST_MEMORY_GIB),
        "least and most memory of each GPU, GiB, as NVML tells it",
        default=None,
        left_out="any",
    )
    cpu: bool = key(FLAG, "the file is for machines without a GPU", default=False)
    cpu_names: tuple[str, ...] = key(
        PATTERNS, "with `cpu`: names of the processor, as /proc/cpuinfo has them", default=(), left_out="any"
    )

    def knows(self, gpus: tuple[Gpu, ...]) -> bool:
        """Whether there are GPUs and the file is for GPUs of their names, whatever their count and memory."""
        return bool(gpus) and all(_any(self.gpu_names, gpu.name) for gpu in gpus)

    def mismatch(self, machine: Machine) -> str | None:
        """Why the file is not for a machine; None if it is."""
        return self._mismatch_cpu(machine) if self.cpu else self._mismatch_gpus(machine.gpus)

    def _mismatch_cpu(self, machine: Machine) -> str | None:
        if machine.gpus:
            return "it is for machines without a GPU"
        if self.cpu_names and not _any(self.cpu_names, machine.cpu):
            return f"it is for the processor {' or '.join(self.cpu_names)}"
        return None

    def _mismatch_gpus(self, gpus: tuple[Gpu, ...]) -> str | None:
        if not self.knows(gpus):
            return f"it is for {' or '.join(self.gpu_names)}"
        if len(gpus) != self.gpu_count:
            return f"it is for {self.gpu_count} GPU{'s' if self.gpu_count > 1 else ''}, {len(gpus)} visible"
        if self.gpu_memory_gib is not None and not all(map(self._has_memory, gpus)):
            low, high = self.gpu_memory_gib
            return f"it is for GPUs of {low:g} to {high:g} GiB"
        return None

    def _has_memory(self, gpu: Gpu) -> bool:
        low, high = self.gpu_memory_gib or (0, 0)
        return low <= gpu.memory_bytes / GIB <= high


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run of one scenario and model-opt takes where its own options say nothing."""

    engine: str = key(
        choice(lambda: (AUTO, *ENGINES), f"`{AUTO}` or the name of an engine"),
        "the engine to prefer",
        default=AUTO,
    )
    precision: str = key(choice(lambda: PRECISIONS), "of the UNets")
    use_graphs: bool = key(FLAG, "whether CUDA graphs are captured")
    gpu_batch_size: Mapping[str, int] = key(
        batches(LARGEST_BATCH),
        "images per batch; guidance doubles the rows of every network but the decoder. "
        "Both UNets have one, since they share buffers. "
        "A scenario's table may name some networks alone",
    )
    shallow_unet_steps: int = key(
        whole(1, 19), "shallow steps after each deep one; NoOpt has none whatever it says", default=1
    )
    workspace_gib: float | None = key(
        number(LARGEST_MEMORY_GIB),
        "most workspace that TensorRT may use while it builds, GiB",
        default=None,
        left_out="the engine's own limit",
    )
    devices: int = key(whole(1, 1024), "how many of the GPUs a run uses", left_out="all of them; 1 without a GPU")
    offline_expected_qps: float | None = key(
        number(LARGEST_QPS),
        "samples per second of the whole machine. LoadGen sizes its query with it, or with what the engine is "
        "measured to draw where that is more: too high a figure makes a run that takes longer. Below 7.57 it changes "
        "nothing, since 5000 samples are the least",
        default=None,
        left_out="LoadGen's expected qps stays 1",
        per_run=True,
    )
    source: str | None = key(
        TEXT,
        "where `offline_expected_qps` comes from: who measured it, with what, or what it was computed from",
        default=None,
        left_out="only without `offline_expected_qps`",
        per_run=True,
    )

    @property
    def common_batch(self) -> int:
        """Images per batch for a pipeline that has one batch size for all networks: the smallest."""
        return min(self.gpu_batch_size.values())

    def to_json(self) -> dict[str, Any]:
        """Every key as values that JSON and TOML can carry; None where one is left out."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """One file, read and checked, or its like computed for a machine that no file is for.

    Args:
        name: The file's name without `.toml`.
        description: One line.
        match: Which machines it is for.
        defaults: For runs without a table of their own.
        runs: By scenario and model-opt, the defaults filled in.
        path: The file; None for a computed one.
    """

    name: str
    description: str = key(TEXT, "one line on the machine")
    match: Match
    defaults: RunConfig
    runs: Mapping[tuple[str, str], RunConfig] = field(default_factory=dict)
    path: Path | None = None

    def run(self, scenario: str, model_opt: str) -> RunConfig:
        """What a run of a scenario and a model-opt takes."""
        return self.runs.get((scenario, model_opt), self.defaults)

    def to_json(self) -> dict[str, Any]:
        """The configuration as values that JSON can carry."""
        runs: dict[str, dict[str, Any]] = {}
        for (scenario, model_opt), run in self.runs.items():
            runs.setdefault(scenario, {})[model_opt] = run.to_json()
        return {
            "name": self.name,
            "description": self.description,
            "path": None if self.path is None else str(self.path),
            "match": dataclasses.asdict(self.match),
            "defaults": self.defaults.to_json(),
            "runs": runs,
        }
