"""Which engines there are, what each needs, and which one `auto` takes."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sdxl_engine.errors import UnavailableError, unknown_choice

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.models.spec import ModelSpec

AUTO = "auto"


@dataclass(frozen=True)
class EngineEntry:
    """One registered engine.

    Args:
        name: What users ask for.
        factory: `module:callable(checkpoint, spec, cache) -> Engine`, imported only when it is used.
        needs: Modules that must be importable.
        extra: The extra of this project that installs them.
    """

    name: str
    factory: str
    needs: tuple[str, ...]
    extra: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Needed modules that are not installed; nothing is imported to find out."""
        return tuple(module for module in self.needs if importlib.util.find_spec(module) is None)


_TORCH = ("torch", "diffusers", "transformers")
ENGINES = {
    entry.name: entry
    for entry in (
        # In the order in which `auto` tries them.
        EngineEntry(
            "onnxruntime",
            "sdxl_engine.engines.onnxruntime_engine:create",
            (*_TORCH, "onnx", "onnxscript", "onnxruntime"),
            "onnxruntime",
        ),
        EngineEntry("torch", "sdxl_engine.engines.torch_engine:create", _TORCH, "torch"),
    )
}


def resolve_engine(name: str, *, source: str = "engine") -> EngineEntry:
    """The engine asked for, or for `auto` the first that is installed. Imports no heavy library.

    Raises:
        UsageError: there is no engine of that name.
        UnavailableError: what it needs is not installed.
    """
    if name == AUTO:
        installed = next((entry for entry in ENGINES.values() if not entry.missing), None)
        if installed is not None:
            return installed
        name = "torch"
    if name not in ENGINES:
        raise unknown_choice("engine", name, [AUTO, *ENGINES], source=source)
    entry = ENGINES[name]
    if entry.missing:
        raise UnavailableError(
            f"the engine {name!r} is not installed",
            got="no module " + ", ".join(entry.missing),
            expected=", ".join(entry.needs),
            source=source,
            fix=f"pip install 'pytest-sdxl[{entry.extra}]'",
        )
    return entry


def create_engine(entry: EngineEntry, checkpoint: Path, spec: ModelSpec, cache: Path) -> Engine:
    """Load, and where need be build, an engine for a checkpoint.

    Args:
        entry: From `resolve_engine`.
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: Where built files go, `build/engines`.
    """
    module, _, function = entry.factory.partition(":")
    return cast("Engine", getattr(importlib.import_module(module), function)(checkpoint, spec, cache))
