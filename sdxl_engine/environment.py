"""What a figure was measured with: versions, processor, operating system."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = (
    "pytest-sdxl",
    "torch",
    "onnxruntime",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "mlcommons-loadgen",
    "numpy",
)


def environment() -> dict[str, str]:
    """Names to values, cheap to gather: no library is imported and no process started."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name as the kernel tells it; the architecture where it tells none, as on Arm."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
