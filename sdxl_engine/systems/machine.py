"""What this machine is, from the operating system and NVML; no CUDA context is made and no process started."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.environment import processor

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 2**30
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Gpu:
    """One GPU that a CUDA program started here would see.

    Args:
        name: NVML's product name.
        memory_bytes: All of its memory, as NVML tells it; the host's where the GPU has none of its own.
        uuid: `GPU-...`, or `MIG-...` for an instance.
        pci_id: Vendor and device, `10de:2330`.
        compute_capability: Major and minor.
        mig: Whether this is an instance of a GPU in MIG mode.
    """

    name: str
    memory_bytes: int
    uuid: str
    pci_id: str
    compute_capability: tuple[int, int]
    mig: bool = False

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name}, {self.memory_bytes / GIB:.1f} GiB, compute capability {major}.{minor}"


@dataclass(frozen=True)
class Machine:
    """The parts of a machine that a configuration is chosen by.

    Args:
        cpu: The processor's name.
        cores: Logical cores that this process may run on.
        host_memory_bytes: Of the machine, or of the control group that this process is in where that allows less.
        gpus: What CUDA_VISIBLE_DEVICES leaves, in its order.
        driver: Version of the NVIDIA driver; None without one.
        gpu_error: What NVML said where a driver is here and does not answer; None otherwise.
        notes: What a reader of the rest should know, a sentence each.
    """

    cpu: str
    cores: int
    host_memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    gpu_error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The GPUs by kind, or the processor, on one line."""
        if not self.gpus:
            return f"{self.cpu}, {self.cores} cores, {self.host_memory_bytes / GIB:.1f} GiB, no GPU"
        kinds = list(dict.fromkeys(str(gpu) for gpu in self.gpus))
        counts = [sum(str(gpu) == kind for gpu in self.gpus) for kind in kinds]
        return "; ".join(f"{count} x {kind}" for count, kind in zip(counts, kinds, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Every field as values that JSON can carry."""
        return dataclasses.asdict(self)


def detect(environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine.

    Args:
        environ: Where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are read from.
    """
    from sdxl_engine.systems.nvml import find_gpus

    memory = host_memory()
    found = find_gpus(environ, memory)
    return Machine(
        processor(), len(os.sched_getaffinity(0)), memory, found.gpus, found.driver, found.error, found.notes
    )


def host_memory(limits: tuple[Path, ...] = _CGROUP_LIMITS) -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit where that is lower.

    Args:
        limits: Files with the limit of cgroup v2 and v1; "max", or a number above the machine's memory, is none.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in limits:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            memory = min(memory, int(text))
    return memory
