"""The GPUs of this machine as NVML tells them, through the module `pynvml` of the package nvidia-ml-py."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.systems.machine import Gpu
from sdxl_engine.systems.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Found:
    """What NVML told; the fields are those of `Machine`."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()


def find_gpus(environ: Mapping[str, str], host_memory: int, kernel_driver: Path = _KERNEL_DRIVER) -> Found:
    """The GPUs that a CUDA program started with this environment would see.

    A machine without a driver is a machine without GPUs. A driver that is here and does not answer is told apart: it
    leaves no GPUs too, but `error` says what it said.

    Args:
        environ: Where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are read from.
        host_memory: Bytes, for GPUs that share the host's memory.
        kernel_driver: The file that is there while the driver is loaded.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        missing = "an NVIDIA driver is loaded, but nvidia-ml-py is not installed: pip install 'pytest-sdxl[nvml]'"
        return Found(error=missing if kernel_driver.exists() else None)
    try:
        nvml.nvmlInit()
        try:
            return _visible(_gpus(nvml, host_memory), nvml.nvmlSystemGetDriverVersion(), environ)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return Found()
        if error.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return Found(notes=("NVIDIA's library is installed, but its driver is not loaded",))
        return Found(error=f"the NVIDIA driver does not answer: {error}")


@dataclass(frozen=True)
class _Gpus:
    """Every GPU that NVML tells of, by index, and of those in MIG mode the instances, by the GPU's UUID."""

    whole: list[Gpu]
    instances: dict[str, list[Gpu]]
    notes: list[str]


def _gpus(nvml: Any, host_memory: int) -> _Gpus:
    found = _Gpus([], {}, [])
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NO_PERMISSION:
                raise
            found.notes.append(f"this process has no access to GPU {index}")
            continue
        gpu = _gpu(nvml, handle, handle, host_memory)
        found.whole.append(gpu)
        if _mig_mode(nvml, handle):
            parts = [_gpu(nvml, each, handle, host_memory) for each in _mig_handles(nvml, handle)]
            found.instances[gpu.uuid] = parts
            if not parts:
                found.notes.append(f"GPU {index} is in MIG mode and has no instance: CUDA does not see it")
    return found


def _visible(found: _Gpus, driver: str, environ: Mapping[str, str]) -> Found:
    value, whole, notes = environ.get("CUDA_VISIBLE_DEVICES"), found.whole, list(found.notes)
    if value is not None and value.strip().startswith("MIG-"):
        parts = [gpu for each in found.instances.values() for gpu in each]
        seen = [parts[position] for position in visible(value, [gpu.uuid for gpu in parts])]
    else:
        chosen = [whole[position] for position in visible(value, [gpu.uuid for gpu in whole])]
        seen = [part for gpu in chosen for part in found.instances.get(gpu.uuid, [gpu])]
        if len(chosen) < len(whole):
            notes.append(f"CUDA_VISIBLE_DEVICES={value!r} leaves {len(chosen)} of this machine's {len(whole)} GPUs")
    by_index = bool(value) and not str(value).strip().startswith(("GPU-", "MIG-"))
    # CUDA's own order is by speed; without a context only NVML's, by PCI bus, is known.
    if by_index and len({gpu.name for gpu in whole}) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        notes.append("the GPUs differ: set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that CUDA counts them as NVML does")
    first = next((gpu for gpu in seen if gpu.mig), None)
    if first is not None and len(seen) > 1:
        # NVIDIA's MIG User Guide, "CUDA Device Enumeration".
        notes.append(f"CUDA gives a process one MIG instance and no GPU beside it: the first of {len(seen)}")
        seen = [first]
    return Found(tuple(seen), driver, None, tuple(notes))


def _gpu(nvml: Any, handle: Any, parent: Any, host_memory: int) -> Gpu:
    """Of a GPU, or of a MIG instance and the GPU that it is a part of."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        memory = host_memory
    device_and_vendor = nvml.nvmlDeviceGetPciInfo(parent).pciDeviceId
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=memory,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        pci_id=f"{device_and_vendor & 0xFFFF:04x}:{device_and_vendor >> 16:04x}",
        compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(parent)),
        mig=handle is not parent,
    )


def _mig_mode(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return False
    return bool(current)


def _mig_handles(nvml: Any, handle: Any) -> Iterator[Any]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            # Places without an instance lie between those with one.
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise
