"""What the `sdxl_run` fixture gives: each LoadGen test once per configuration and session, failed or not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_sdxl import properties
from pytest_sdxl.gates import skip_ungated
from pytest_sdxl.library import MODES, Mode, library
from pytest_sdxl.report.progress import Progress
from sdxl_engine.errors import SdxlError, UsageError, unknown_choice
from sdxl_engine.report import Result
from sdxl_engine.results import Measurement
from sdxl_engine.settings import RunSettings


@dataclass(frozen=True)
class _Failed:
    """A run that raised: the test that met it first shows the whole of it, the others point there."""

    nodeid: str
    summary: str


_RUNS = pytest.StashKey[dict[RunSettings, Measurement | _Failed]]()


class SdxlRun:
    """Runs LoadGen for one test: `sdxl_run("AccuracyOnly")`, `sdxl_run("PerformanceOnly")`.

    Keyword arguments replace fields of the settings, so that one test can compare configurations::

        fast = sdxl_run("PerformanceOnly", model_opt="DeepCache")
        slow = sdxl_run("PerformanceOnly", model_opt="NoOpt")
    """

    def __init__(self, item: pytest.Item, settings: RunSettings) -> None:
        self.settings = settings
        self._item = item

    def __call__(self, mode: Mode, **changes: Any) -> Measurement:
        """Measure, or give the measurement that this session already has.

        Args:
            mode: `AccuracyOnly` or `PerformanceOnly`.
            **changes: Fields of `RunSettings` to replace.

        Returns:
            LoadGen's figures, and in accuracy mode the scores and the verdict on them. Nothing is judged
            here: that is what `assert_accuracy` and `assert_performance` of `pytest_sdxl.gates` do.
        """
        if mode not in MODES:
            raise unknown_choice("run", mode, MODES, source=f"sdxl_run in {self._item.nodeid}")
        settings = dataclasses.replace(self.settings, **changes, test_mode=mode)
        settings.check()
        if mode == "AccuracyOnly":
            skip_ungated(settings.model)
        runs = self._item.config.stash.setdefault(_RUNS, {})
        if settings not in runs:
            runs[settings] = self._measure(settings, mode, runs)
        run = runs[settings]
        if isinstance(run, _Failed):
            pytest.fail(f"not measured again: this run failed in {run.nodeid}: {run.summary}", pytrace=False)
        return run

    def _measure(
        self, settings: RunSettings, mode: Mode, runs: dict[RunSettings, Measurement | _Failed]
    ) -> Measurement:
        item = self._item
        progress = Progress(item.config, f"{settings.model_opt} {mode}")
        try:
            measurement = library().measure(settings, mode, progress)
        except SdxlError as error:
            runs[settings] = _Failed(item.nodeid, error.what)
            if isinstance(error, UsageError):
                item.user_properties.append((properties.REFUSED, str(error)))
            pytest.fail(str(error), pytrace=False)
        except Exception as error:
            runs[settings] = _Failed(item.nodeid, repr(error))
            raise
        result = Result.of(measurement, settings, item.config.rootpath)
        item.user_properties.append((properties.RESULT, result.dumps()))
        return measurement
