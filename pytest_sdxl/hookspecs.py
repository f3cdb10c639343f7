"""The hooks that this plugin calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sdxl_engine.report import Result


@pytest.hookspec
def pytest_sdxl_engines(config: pytest.Config) -> dict[str, str]:  # noqa: ARG001 -- implementations take it
    """Called once to learn of engines that are not installed as an entry point.

    A run draws in a process of its own, which imports the module: it must be importable there, see PYTHONPATH.

    Returns:
        Names for `--sdxl-engine` to `module:attribute`, where an `sdxl_engine.engines.EngineEntry` is found.

    For example, in a `conftest.py`::

        def pytest_sdxl_engines(config):
            return {"mine": "my_package.engine:ENTRY"}
    """
    return {}


@pytest.hookspec
def pytest_sdxl_result(config: pytest.Config, result: Result) -> None:
    """Called for each result as it arrives, in the process that reports (under pytest-xdist, the controller).

    The test that measured it has not ended yet, so its outcome is not known here; `result.verdict` is.

    For example, in a `conftest.py`::

        def pytest_sdxl_result(config, result):
            if result.mode == "PerformanceOnly":
                dashboard.send(result.model_opt, result.metric("samples_per_second").value)
    """
