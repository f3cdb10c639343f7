"""What a plan is built for: the GPU that is here, or, with TensorRT-RTX, compute capabilities named ahead of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.engines.tensorrt.library import TENSORRT_RTX
from sdxl_engine.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from sdxl_engine.engines.tensorrt.gpu import Gpu
    from sdxl_engine.engines.tensorrt.library import Library

ANY_GPU = "any, ahead of time"
AHEAD = "ahead-of-time"


@dataclass(frozen=True)
class Target:
    """What a plan is built for.

    Args:
        gpu: Its name, or `ANY_GPU`.
        compute_capabilities: `9.0`; ascending.
        system: Name of the folder, in the benchmark's manner: `H200x1`; `ahead-of-time-sm80-sm89`.
    """

    gpu: str
    compute_capabilities: tuple[str, ...]
    system: str


def target_of(library: Library, gpu: Gpu | None, asked: tuple[str, ...] = ()) -> Target:
    """What to build for.

    Args:
        library: TensorRT builds for the GPU that it runs on; TensorRT-RTX for any that it knows.
        gpu: The GPU that is here.
        asked: Compute capabilities; none takes that of the GPU here, or without one all that TensorRT-RTX knows.

    Raises:
        UsageError: the library cannot build for what is asked.
        UnavailableError: it needs a GPU and there is none.
    """
    if library.ahead_of_time:
        known = compute_capabilities(library)
        chosen = asked or ((gpu.compute_capability,) if gpu is not None else known)
        foreign = [capability for capability in chosen if capability not in known]
        if foreign:
            raise UsageError(
                f"TensorRT-RTX {library.version} does not build for this GPU",
                got=f"compute capability {', '.join(foreign)}",
                expected="one of " + ", ".join(known),
                source="--compute-capability" if asked else gpu,
                fix="TensorRT itself runs on the others: see docs/tensorrt.md",
            )
        ordered = tuple(capability for capability in known if capability in chosen)
        return Target(ANY_GPU, ordered, "-".join([AHEAD, *map(_sm, ordered)]))
    if gpu is None:
        raise UnavailableError(
            "TensorRT builds on the GPU that the plan is for, and there is none",
            got="no GPU that CUDA can use",
            expected="an NVIDIA GPU, its driver and cuda-python",
            source=f"tensorrt {library.version}",
            fix="build on that machine; or uninstall tensorrt and pip install 'pytest-sdxl[tensorrt-rtx]', "
            "which builds ahead of time",
        )
    if asked not in ((), (gpu.compute_capability,)):
        raise UsageError(
            "TensorRT builds for the GPU that it runs on",
            got=", ".join(asked),
            expected=f"{gpu.compute_capability}, the {gpu.name} here, or nothing",
            source="--compute-capability",
            fix=f"only {TENSORRT_RTX} builds ahead of time",
        )
    name = gpu.name.removeprefix("NVIDIA ").replace(" ", "-")
    return Target(gpu.name, (gpu.compute_capability,), f"{name}x{gpu.count}")


def compute_capabilities(library: Library) -> tuple[str, ...]:
    """Those that TensorRT-RTX can build for, ascending: `7.5` to `12.1`."""
    numbers = [int(name[2:]) for name in dir(library.module.ComputeCapability) if name.startswith("SM")]
    return tuple(f"{number // 10}.{number % 10}" for number in sorted(numbers))


def capability_member(capability: str) -> str:
    """The name of a compute capability in TensorRT-RTX's enumeration: `8.9` is `SM89`."""
    return _sm(capability).upper()


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")
