"""What the GPU can do and what it does meanwhile: rates of large matrix products, clock and power."""

from __future__ import annotations

import importlib
import statistics
import threading
from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3
from sdxl_engine.engines.cuda.timing import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SIDE = 8192
_REPEATS = 300
"""Long enough, about half a second, for the clock to fall to what the power limit leaves."""
_INTERVAL_S = 0.02


class Monitor:
    """Samples NVML from a thread of its own while a `with` block runs.

    Attributes:
        clock_mhz: Median clock of the multiprocessors; None where NVML does not tell.
        power_w: Median power of the board, which NVML averages over about a second itself; None likewise.
        note: Why it does not tell.
    """

    def __init__(self) -> None:
        self.clock_mhz: float | None = None
        self.power_w: float | None = None
        self.note = ""
        self._clocks: list[float] = []
        self._powers: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="nvml", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._clocks:
            self.clock_mhz = statistics.median(self._clocks)
        if self._powers:
            self.power_w = statistics.median(self._powers)

    def _sample(self) -> None:
        try:
            nvml: Any = importlib.import_module("pynvml")
            nvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - without a clock the figures of speed are still good
            self.note = f"NVML: {error}"
            return
        try:
            # CUDA_VISIBLE_DEVICES counts otherwise than NVML does.
            uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
            gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
            while not self._done.wait(_INTERVAL_S):
                self._clocks.append(float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)))
                self._powers.append(nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
        except nvml.NVMLError as error:
            self.note = f"NVML: {error}"
        finally:
            nvml.nvmlShutdown()


def ceilings() -> dict[str, float]:
    """TFLOP/s of a product of two 8192x8192 matrices, fp16 by `torch.mm` and fp8 by `torch._scaled_mm`."""
    a, w = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    one = torch.ones(1, device="cuda")
    a8, w8 = a.to(E4M3), w.to(E4M3)
    ways: dict[str, Callable[[], object]] = {
        "fp16": lambda: torch.mm(a, w.t()),
        "fp8": lambda: torch._scaled_mm(
            a8, w8.t(), scale_a=one, scale_b=one, out_dtype=torch.float16, use_fast_accum=True
        ),
    }
    return {name: 2 * SIDE**3 / milliseconds(way, _REPEATS) / 1e9 for name, way in ways.items()}


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `run`, which is warmed up first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph
