"""The configuration for a GPU machine that no file is for: what fits its memory."""

from __future__ import annotations

from glob import escape
from typing import TYPE_CHECKING

from sdxl_engine.systems.config import Match, RunConfig, SystemConfig
from sdxl_engine.systems.estimate import fitting_batch, needed_bytes, usable_bytes
from sdxl_engine.systems.machine import GIB

if TYPE_CHECKING:
    from sdxl_engine.systems.machine import Machine

NAME = "computed"
_TENSOR_CORES = (7, 0)
"""First compute capability whose fp16 is faster than its fp32 (Volta)."""

_MEMORY_TOLERANCE = 0.05
"""Share by which a GPU's memory may differ from that of another of its kind: NVIDIA's harness allows as much."""


def exact_match(machine: Machine) -> Match:
    """A `[match]` for machines like this one."""
    if not machine.gpus:
        return Match(cpu=True, cpu_names=(escape(machine.cpu),))
    sizes = [gpu.memory_bytes / GIB for gpu in machine.gpus]
    return Match(
        gpu_names=tuple(dict.fromkeys(escape(gpu.name) for gpu in machine.gpus)),
        gpu_count=len(machine.gpus),
        gpu_memory_gib=(
            round(min(sizes) * (1 - _MEMORY_TOLERANCE), 1),
            round(max(sizes) * (1 + _MEMORY_TOLERANCE), 1),
        ),
    )


def computed(machine: Machine) -> tuple[SystemConfig, str]:
    """A configuration for a machine with GPUs, and what its user should know about it.

    8-bit precision is never chosen: it takes calibrated weights, so a file has to ask for it.

    Args:
        machine: With one GPU or more; where they differ, the smallest is what has to fit.
    """
    smallest = min(machine.gpus, key=lambda gpu: gpu.memory_bytes)
    precision = "fp16" if smallest.compute_capability >= _TENSOR_CORES else "fp32"
    batch, fits = fitting_batch(smallest.memory_bytes, precision)
    needed = needed_bytes(precision, batch) / GIB
    usable = usable_bytes(smallest.memory_bytes) / GIB
    if fits:
        note = f"computed from {smallest.memory_bytes / GIB:.1f} GiB of GPU memory, not measured"
    else:
        note = (
            f"the full-size networks do not fit: {precision} at batch 1 needs about {needed:.1f} GiB, "
            f"{usable:.1f} of {smallest.memory_bytes / GIB:.1f} GiB can be planned with"
        )
    if len({gpu.name for gpu in machine.gpus}) > 1:
        note += "; the GPUs differ, and all are run as the smallest one"
    run = RunConfig(
        precision=precision,
        use_graphs=True,
        gpu_batch_size=batch,
        workspace_gib=float(round(smallest.memory_bytes / GIB / 2)),
        devices=len(machine.gpus),
    )
    return SystemConfig(name=NAME, description=machine.summary, match=exact_match(machine), defaults=run), note
