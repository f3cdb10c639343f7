"""The GPU of this machine, as CUDA's runtime tells of it; torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdxl_engine.errors import UnavailableError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        name: `NVIDIA H200`.
        compute_capability: `9.0`.
        count: How many GPUs there are.
    """

    name: str
    compute_capability: str
    count: int


def device_number(device: str) -> int:
    """0 for `cuda`, n for `cuda:n`; `auto` is the first."""
    return int(device.partition(":")[2] or 0)


def find_gpu(number: int = 0) -> Gpu | None:
    """The GPU of that number; None if there is none, or no driver or no cuda-python to ask."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or number >= count:
        return None
    error, properties = runtime.cudaGetDeviceProperties(number)
    if error != runtime.cudaError_t.cudaSuccess:
        return None
    return Gpu(properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}", count)


def use_gpu(number: int) -> None:
    """Make it the current device of this thread, which TensorRT builds for and runs on.

    Raises:
        UnavailableError: CUDA refuses.
    """
    from cuda.bindings import runtime

    (error,) = runtime.cudaSetDevice(number)
    if error != runtime.cudaError_t.cudaSuccess:
        raise UnavailableError(f"CUDA cannot use GPU {number}", got=error.name, source="cudaSetDevice")


def free_memory(number: int | None) -> int:
    """Free bytes: of that GPU, or of this machine where there is no GPU to build on.

    Raises:
        UnavailableError: CUDA does not tell.
    """
    if number is None:
        return _free_host_memory()
    from cuda.bindings import runtime

    use_gpu(number)
    error, free, _ = runtime.cudaMemGetInfo()
    if error != runtime.cudaError_t.cudaSuccess:
        raise UnavailableError(f"CUDA does not tell of GPU {number}'s memory", got=error.name, source="cudaMemGetInfo")
    return int(free)


def _free_host_memory() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
