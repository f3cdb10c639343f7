"""The engine's entry for the registry: what is known of it without loading TensorRT."""

from __future__ import annotations

from sdxl_engine.engines.registry import EngineEntry
from sdxl_engine.engines.tensorrt.library import INSTALL, TENSORRT, TENSORRT_RTX, installed


class _TensorRTEntry(EngineEntry):
    """Needs either of two modules."""

    @property
    def missing(self) -> tuple[str, ...]:
        """See `EngineEntry.missing`."""
        return super().missing + (() if installed() else (f"{TENSORRT} or {TENSORRT_RTX}",))


ENTRY = _TensorRTEntry(
    name="tensorrt",
    factory="sdxl_engine.engines.tensorrt.engine:create",
    needs=("torch", "diffusers", "transformers", "onnx", "onnxscript", "cuda"),
    install=INSTALL,
    precisions=("fp16", "fp32"),
    devices=("cuda",),
)
