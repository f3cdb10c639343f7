"""`trt`: the TensorRT module in use. Import it only where TensorRT is called, since importing it loads the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.engines.tensorrt.library import load

LIBRARY = load()

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = LIBRARY.module

__all__ = ["LIBRARY", "trt"]
