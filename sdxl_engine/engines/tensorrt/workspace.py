"""How much memory TensorRT's builder may take for trying kernels."""

from __future__ import annotations

from sdxl_engine.errors import UsageError

GIB = 1 << 30
MOST_GIB = 80
"""The benchmark's limit (`workspace_size` of NVIDIA's builder); nothing larger is taken unless asked for."""


def workspace_bytes(asked_gib: float | None, free: int, weights: int, device: int | None) -> int:
    """The limit of the workspace.

    Args:
        asked_gib: In GiB; None takes what is free beside the weights, at most `MOST_GIB`.
        free: Bytes that are free where the plan is built.
        weights: Bytes of the ONNX file and the weights beside it.
        device: Number of the GPU, None for the CPU.

    Raises:
        UsageError: what is asked for does not fit beside the weights, or nothing is left.
    """
    room = free - weights
    wanted = min(MOST_GIB * GIB, room) if asked_gib is None else round(asked_gib * GIB)
    if not 0 < wanted <= room:
        where = "this machine" if device is None else f"GPU {device}"
        asked = f"{wanted / GIB:.2f} GiB" if asked_gib is not None else "a workspace"
        raise UsageError(
            "TensorRT's workspace does not fit in free memory",
            got=f"{asked} beside {weights / GIB:.2f} GiB of weights, with {free / GIB:.2f} GiB free on {where}",
            expected=f"more than 0 and at most {max(0, room) / GIB:.2f} GiB",
            source="--workspace",
            fix="free memory, or ask for less: --workspace " + f"{max(0.0, room / GIB * 0.9):.2f}",
        )
    return wanted
