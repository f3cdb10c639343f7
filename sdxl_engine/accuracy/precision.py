"""Full float32 for the metric networks: where they run, and no TF32 or bfloat16 inside.

TF32 keeps 10 of float32's 23 bits, and cuDNN's convolutions use it unless told otherwise: on an H200 (torch 2.11,
2026-11-23) an Inception of random weights then gave features 6e-4 of the largest away from float64's, against 1.5e-6
in float32. PyTorch's switches hold for the whole process, so they are set around the scorer's own calls and put back.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sdxl_engine.errors import AccuracyError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_LOCK = threading.RLock()
"""Two threads that set and put back the same switches would put back each other's."""


def usable_device(device: str) -> torch.device:
    """The device that the metric networks run on.

    Args:
        device: `cpu`, `cuda`, or `cuda:` and a number.

    Raises:
        UsageError: it is none of these.
        UnavailableError: there is no such GPU, or `NVIDIA_TF32_OVERRIDE` forces TF32 on.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in {"cpu", "cuda"}:
        raise UsageError("the scorer knows no such device", got=device, expected="cpu, cuda or cuda:<number>")
    if found.type == "cpu":
        return found
    if (found.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            "the scorer's device is not here",
            got=device,
            expected=f"one of {torch.cuda.device_count()} GPUs",
            fix="--sdxl-metrics-device=auto, or sdxl-engine --metrics-device auto: a GPU where there is one",
        )
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        raise UnavailableError(
            "images are scored in float32",
            got="NVIDIA_TF32_OVERRIDE=1, which puts TF32 in its place",
            fix="unset NVIDIA_TF32_OVERRIDE",
        )
    return found


def device_identity(device: str) -> dict[str, str]:
    """What a score's identity says of the device: `cpu` or the GPU's name, and that TF32 is off."""
    import torch

    found = torch.device(device)
    return {"device": "cpu" if found.type == "cpu" else torch.cuda.get_device_name(found), "tf32": "off"}


@contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Matrix products and convolutions of `device` in full float32 inside; afterwards as before.

    Where the process computes so anyway, nothing is touched. The older names of the switches (`allow_tf32`) are
    kept in step with the newer, since PyTorch refuses to read the older ones where the two differ. On a GPU,
    cuDNN's benchmark mode is off inside: it picks an algorithm by the clock, and with it the last bits.

    Raises:
        AccuracyError: something inside, or another thread meanwhile, set another precision. What was computed is
            not to be used then.
    """
    import torch

    # PyTorch's own annotations leave these switches out.
    cudnn, mkldnn = cast("Any", torch.backends.cudnn), cast("Any", torch.backends.mkldnn)
    ours = {"mkldnn.matmul": mkldnn.matmul, "mkldnn.conv": mkldnn.conv}
    others = {"cuda.matmul": torch.backends.cuda.matmul, "cudnn.conv": cudnn.conv, "cudnn.rnn": cudnn.rnn}
    if torch.device(device).type == "cuda":
        ours, others = others, ours
    with _LOCK:
        before = {operation: operation.fp32_precision for operation in (*ours.values(), *others.values())}
        older, benchmark = torch.get_float32_matmul_precision(), cudnn.benchmark
        relaxed = _relaxed(ours)
        try:
            cudnn.benchmark = False
            if relaxed:
                torch.set_float32_matmul_precision("highest")
                cudnn.allow_tf32 = False
                for operation in before:
                    operation.fp32_precision = "ieee"
            yield
            if changed := _relaxed(ours):
                raise AccuracyError(
                    "the precision was changed while images were scored",
                    got=", ".join(changed),
                    expected="'ieee' or 'none', float32 throughout",
                )
        finally:
            cudnn.benchmark = benchmark
            if relaxed:
                torch.set_float32_matmul_precision(older)
                cudnn.allow_tf32 = before[cudnn.conv] == "tf32"
                for operation, precision in before.items():
                    operation.fp32_precision = precision


def _relaxed(operations: dict[str, Any]) -> list[str]:
    """The switches that allow less than float32, as one would write them."""
    return [
        f"torch.backends.{name}.fp32_precision = {operation.fp32_precision!r}"
        for name, operation in operations.items()
        if operation.fp32_precision not in {"ieee", "none"}
    ]
