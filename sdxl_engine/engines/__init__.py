"""Engines: one protocol, one file per engine. What an engine of your own needs is imported from here.

>>> from sdxl_engine.engines import Capabilities, Engine, EngineEntry, EngineMemory, EngineRequest, check_buffers
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.registry import EngineEntry

if TYPE_CHECKING:
    from sdxl_engine.engines.base import (
        Buffers,
        Capabilities,
        Engine,
        EngineMemory,
        EngineRequest,
        check_buffers,
        with_floats,
    )

__all__ = [
    "Buffers",
    "Capabilities",
    "Engine",
    "EngineEntry",
    "EngineMemory",
    "EngineRequest",
    "check_buffers",
    "with_floats",
]


def __getattr__(name: str) -> Any:
    # The protocol is about torch's tensors: whoever only looks an engine up need not wait for torch.
    if name in __all__:
        return getattr(importlib.import_module("sdxl_engine.engines.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
