"""Which tests run, and with which settings: markers, one run per `--model-opt`, selection by test mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sdxl import properties
from pytest_sdxl.checks import check_items
from pytest_sdxl.options import RESOLVED
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

MARKERS = (
    "accuracy: gates the scores of an accuracy run (CLIP and FID); run them alone with -m accuracy",
    "performance: gates the figures of a performance run; run them alone with -m performance",
    "conformance: compares an engine with the reference; run them alone with -m conformance",
    "gpu: needs an NVIDIA GPU; leave them out with -m 'not gpu'",
)
GATES = ("accuracy", "performance")

MODE_OF = {"accuracy": "AccuracyOnly", "performance": "PerformanceOnly"}
"""The LoadGen test that each gate judges."""


def add_markers(config: pytest.Config) -> None:
    """Register the markers, so that `-m` and `--strict-markers` know them."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses the settings once per `--model-opt`, unless it names its own settings."""
    if "sdxl_settings" not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if "sdxl_settings" in (names.replace(" ", "").split(",") if isinstance(names, str) else names):
            return
    runs = metafunc.config.stash[RESOLVED].runs
    metafunc.parametrize("sdxl_settings", runs, ids=[run.model_opt for run in runs], indirect=True, scope="session")


def gates_of(item: pytest.Item) -> tuple[str, ...]:
    """Which gates a test stands for: its markers, if it measures."""
    if "sdxl_run" not in getattr(item, "fixturenames", ()):
        return ()
    return tuple(name for name in GATES if item.get_closest_marker(name) is not None)


def _measuring(items: list[pytest.Item]) -> Iterator[tuple[pytest.Item, RunSettings, bool]]:
    for item in items:
        callspec = getattr(item, "callspec", None)
        settings = callspec.params.get("sdxl_settings") if callspec is not None else None
        if isinstance(settings, RunSettings):
            yield item, settings, "performance" in gates_of(item)


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the gates of the other test mode, label the rest for the report, and check what they need.

    Raises:
        UsageError: a test that was selected cannot be run as asked.
    """
    mode = config.stash[RESOLVED].runs[0].test_mode
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        gates = gates_of(item)
        wanted = mode == "SubmissionRun" or not gates or mode in {MODE_OF[gate] for gate in gates}
        (kept if wanted else dropped).append(item)
        if wanted and gates:
            item.user_properties.append((properties.GATE, ",".join(gates)))
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
    check_items(config, _measuring(items))
