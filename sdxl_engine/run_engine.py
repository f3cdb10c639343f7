"""The engine of a run: which one its settings stand for here, and the loaded engine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.engines.registry import AUTO, create_engine, resolve_engine

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.engines.registry import EngineEntry
    from sdxl_engine.settings import RunSettings

BATCH_SIZE = 8
"""Images per batch; NVIDIA's DeepCache submission has the same."""

UNSTATED = "unstated"
"""Precision of a pipeline of the user's, unless the settings name one."""


def engine_entry(settings: RunSettings) -> EngineEntry:
    """The engine asked for, checked to be installed and to have the precision asked for. Imports no heavy library.

    Raises:
        UsageError: there is no such engine, or it has no such precision; UnavailableError: it is not installed.
    """
    entry = resolve_engine(settings.engine)
    entry.precision(settings.precision)
    return entry


def engine_name(settings: RunSettings) -> str:
    """What results call the engine: its name, or the import path of the user's own pipeline."""
    return settings.pipeline or resolve_engine(settings.engine).name


def precision_in_effect(settings: RunSettings) -> str:
    """What results call the precision."""
    if settings.pipeline is not None:
        return UNSTATED if settings.precision == AUTO else settings.precision
    return engine_entry(settings).precision(settings.precision)


def open_engine(settings: RunSettings, checkpoint: Path) -> Engine:
    """Load, and where need be build, the engine of a run.

    Raises:
        SdxlError: see `engine_entry`, `EngineEntry.device` and the engine's own.
    """
    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.models.spec import read_spec

    entry = engine_entry(settings)
    request = EngineRequest(
        checkpoint=checkpoint,
        spec=read_spec(checkpoint),
        cache=settings.build_dir / "engines",
        model_opt=settings.model_opt,
        precision=entry.precision(settings.precision),
        batch_size=BATCH_SIZE,
        device=entry.device(settings.device),
    )
    return create_engine(entry, request)
