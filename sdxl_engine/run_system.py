"""What the machine's configuration says of a run, where the run's own options say nothing."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from sdxl_engine.models.source import model_of
from sdxl_engine.shapes import bundle
from sdxl_engine.systems.resolve import Resolved, system_config

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.settings import RunSettings
    from sdxl_engine.systems.config import RunConfig

BATCH_SIZE = 8
"""Images per batch without a configuration; NVIDIA's DeepCache submission has the same."""


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


def batch_size(settings: RunSettings) -> int:
    """Images per batch: of the settings, else of the configuration.

    The pipeline has one batch for all networks, so it is the smallest of the configuration's.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    config = run_config(settings)
    return BATCH_SIZE if config is None else config.common_batch


@functools.cache
def _detected(build_dir: Path, environ: tuple[tuple[str, str], ...]) -> Resolved:
    return system_config(build_dir, environ=dict(environ))
