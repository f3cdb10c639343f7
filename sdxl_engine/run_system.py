"""What the machine's configuration says of a run, where the run's own options say nothing."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from sdxl_engine.cache_schedule import asked_steps, deep_steps, deep_steps_text, other_steps
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.source import model_of
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.shapes import bundle
from sdxl_engine.systems.resolve import Resolved, system_config

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.settings import RunSettings
    from sdxl_engine.systems.config import RunConfig

BATCH_SIZE = 8
"""Images per batch without a configuration; NVIDIA's DeepCache submission has the same."""


UNSTATED = "unstated"
"""What results say of a pipeline of the user's, unless the settings say it."""


def system_of(settings: RunSettings) -> Resolved | None:
    """This machine and its configuration; None for `shapes`, whose runs are the same on every machine.

    Raises:
        UsageError: the folder of configurations is missing; AssetError: a file is wrong.
    """
    if model_of(settings).checkpoint == bundle.BUNDLE:
        return None
    return _detected(settings.build_dir, tuple(sorted(os.environ.items())))


def run_config(settings: RunSettings) -> RunConfig | None:
    """The configuration's part for the scenario and variant of a run."""
    system = system_of(settings)
    return None if system is None else system.config.run(settings.scenario, settings.model_opt)


def batch_sizes(settings: RunSettings) -> dict[str, int]:
    """Images per batch of each network, for files that are built ahead: of the settings, else of the configuration."""
    config = run_config(settings)
    if settings.batch_size is not None or config is None:
        return dict.fromkeys(NETWORKS, settings.batch_size or BATCH_SIZE)
    return dict(config.gpu_batch_size)


def batch_size(settings: RunSettings) -> int:
    """Images per batch: of the settings, else of the configuration.

    The pipeline has one batch for all networks, so it is the smallest of the configuration's.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    config = run_config(settings)
    return BATCH_SIZE if config is None else config.common_batch


def cache_schedule(settings: RunSettings) -> tuple[int, ...]:
    """The steps that run the deep UNet: of the settings, else of the configuration, else the variant's own."""
    asked = asked_steps(settings.model_opt, settings.shallow_steps, settings.deep_steps)
    if asked is not None:
        return asked
    config = run_config(settings)
    return tuple(deep_steps(settings.model_opt, STEPS, 1 if config is None else config.shallow_unet_steps))


def schedule_in_effect(settings: RunSettings) -> str:
    """What results say of the deep steps; what a pipeline of the user's has is known where the settings name it."""
    if settings.pipeline is not None and settings.shallow_steps is None and settings.deep_steps is None:
        return UNSTATED
    return deep_steps_text(cache_schedule(settings))


def other_schedule(settings: RunSettings) -> str:
    """Names the deep steps of a run where they are not its variant's own; else empty."""
    return other_steps(settings.model_opt, schedule_in_effect(settings))


@functools.cache
def _detected(build_dir: Path, environ: tuple[tuple[str, str], ...]) -> Resolved:
    return system_config(build_dir, environ=dict(environ))
