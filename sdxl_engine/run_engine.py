"""The engine of a run: which one its settings stand for here, and the loaded engine itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sdxl_engine.engines.registry import AUTO, create_engine, resolve_engine
from sdxl_engine.run_system import UNSTATED, batch_size, run_config, system_of

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.engines.registry import EngineEntry
    from sdxl_engine.settings import RunSettings

_CALIBRATED = ("int8", "fp8")


def engine_entry(settings: RunSettings) -> EngineEntry:
    """The engine asked for, checked to be installed and to have the precision asked for. Imports no heavy library.

    `auto` is the one that the machine's configuration names, where it names one.

    Raises:
        UsageError: there is no such engine, or it has no such precision; UnavailableError: it is not installed.
    """
    config = run_config(settings) if settings.engine == AUTO else None
    entry = resolve_engine(config.engine if config is not None else settings.engine)
    entry.precision(settings.precision)
    return entry


def engine_name(settings: RunSettings) -> str:
    """What results call the engine: its name, or the import path of the user's own pipeline."""
    return settings.pipeline or engine_entry(settings).name


def precision_in_effect(settings: RunSettings) -> str:
    """What results call the precision."""
    if settings.pipeline is not None:
        return UNSTATED if settings.precision == AUTO else settings.precision
    return _precision(settings, engine_entry(settings))


def _precision(settings: RunSettings, entry: EngineEntry) -> str:
    """Asked for; else the machine's configuration's, if the engine has it; else the engine's own.

    A configuration's 8-bit precision is for the engine that it names: it needs calibration captions, and what it does
    to images is each engine's own.
    """
    config = run_config(settings) if settings.precision == AUTO else None
    if config is None or config.precision not in entry.precisions:
        return entry.precision(settings.precision)
    if config.precision not in _CALIBRATED or config.engine == entry.name:
        return config.precision
    return entry.precision(settings.precision)


def run_devices(settings: RunSettings) -> tuple[str, ...]:
    """Where a run draws: on one device, or on several side by side, each with an engine of its own.

    `auto` of a full-size model is as many GPUs as the machine's configuration has. A pipeline of the user's is made for
    several where they are named alone: it need not look at the device that it is asked for.

    Raises:
        UsageError: the engine does not run there; UnavailableError: a GPU is not here.
    """
    asked = settings.device.split(",")
    if settings.pipeline is not None:
        return tuple(asked)
    entry = engine_entry(settings)
    devices = tuple(entry.device(each) for each in asked)
    config = run_config(settings) if settings.device == AUTO else None
    if config is None or config.devices == 1 or devices != ("cuda",):
        return devices
    return tuple(entry.device(f"cuda:{number}") for number in range(config.devices))


def expected_qps(settings: RunSettings) -> float:
    """Samples per second that a run is expected to reach at least: the machine's configuration's, else one.

    The configuration's is of the whole machine; a run on some of its GPUs is expected to reach their share. One that is
    faster is sized by what it is measured to do, see `LoadgenSpec.expected_qps`.
    """
    system, config = system_of(settings), run_config(settings)
    if system is not None and config is not None:
        gpus = len(system.machine.gpus) or 1
        return (config.offline_expected_qps or 1.0) * min(1.0, len(run_devices(settings)) / gpus)
    return 1.0


def open_engine(settings: RunSettings, checkpoint: Path) -> Engine:
    """Load, and where need be build, the engine of a run.

    Raises:
        SdxlError: see `engine_entry`, `EngineEntry.device` and the engine's own.
    """
    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.export.calibration_set import calibration_set
    from sdxl_engine.models.spec import read_spec

    entry = engine_entry(settings)
    request = EngineRequest(
        checkpoint=checkpoint,
        spec=read_spec(checkpoint),
        cache=settings.build_dir / "engines",
        model_opt=settings.model_opt,
        precision=_precision(settings, entry),
        batch_size=batch_size(settings),
        device=entry.device(settings.device),
        calibration=partial(calibration_set, settings),
    )
    return create_engine(entry, request)
