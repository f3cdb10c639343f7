"""Put a pipeline together from the settings of a run, in the process that runs it."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, cast

from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.data_parallel import DataParallel
from sdxl_engine.errors import UsageError
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.source import model_of
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.run_captions import own_share
from sdxl_engine.run_engine import open_engine, run_devices
from sdxl_engine.run_system import batch_size, cache_schedule, run_config
from sdxl_engine.schedule import read_schedule
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.loadgen.source import ImageSource
    from sdxl_engine.systems.config import RunConfig


IMAGE_SOURCE = "sdxl_engine.assemble:image_source"


def open_pipeline(settings: RunSettings, wrap: Callable[[Engine], Engine] = lambda engine: engine) -> Pipeline:
    """Load the model and its engine, and make the pipeline for the first captions.

    Args:
        settings: What to run; `pipeline` is not looked at: this is the one that takes its place.
        wrap: Gives what is to run in the engine's place.

    Raises:
        SdxlError: something asked for does not exist, is not installed or is damaged.
    """
    model = model_of(settings)
    model.check_variant(settings.model_opt)
    model.verify()
    captions = own_share(settings, model)
    config = run_config(settings)
    engine = wrap(open_engine(settings, model.checkpoint))
    return Pipeline(
        engine,
        read_schedule(model.checkpoint, STEPS),
        cache_schedule(settings),
        tokenise(model.checkpoint, [caption.text for caption in captions], engine.spec.tokens),
        read_latent(model.latent, engine.spec),
        batch_size(settings),
        graphs=_graphs(settings, engine, config),
    )


def _graphs(settings: RunSettings, engine: Engine, config: RunConfig | None) -> bool:
    """Whether to draw by CUDA graphs: as asked, else as the machine's configuration has it, else where it can be.

    Raises:
        UsageError: they are insisted on, and the engine cannot be captured.
    """
    if settings.graphs == "on" and not engine.capabilities.capturable:
        raise UsageError(
            "this engine's batches cannot be CUDA graphs",
            got=f"engine {engine.name} on {engine.device}, graphs on",
            expected="an engine on a GPU that declares itself capturable, or graphs auto",
            source="graphs",
        )
    if settings.graphs == "auto" and config is not None:
        return config.use_graphs
    return settings.graphs != "off"


def image_source(settings: dict[str, Any]) -> ImageSource:
    """The factory of a LoadGen test: our pipeline, or the one that `settings.pipeline` names.

    Of several devices, one such in a process for each: every process calls this again, with its own device.

    A pipeline of the user's is `module:callable`, called with the `RunSettings` of the run; it may start from
    `open_pipeline(settings)` and change what it tests.

    Args:
        settings: `RunSettings.to_json()`.
    """
    run = RunSettings.from_json(settings)
    devices = run_devices(run)
    if len(devices) > 1:
        each = [(device, {"settings": dataclasses.replace(run, device=device).to_json()}) for device in devices]
        return DataParallel(IMAGE_SOURCE, each)
    if run.pipeline is None:
        return open_pipeline(run)
    module, _, name = run.pipeline.partition(":")
    try:
        build = cast("Callable[[RunSettings], ImageSource]", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "the pipeline under test cannot be imported",
            got=error,
            expected="module:callable",
            source=run.pipeline,
        ) from error
    return build(run)
