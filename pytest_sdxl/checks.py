"""What is refused before a test runs: option values at once, the environment only for those who need it.

A value outside its set stops any session, wherever it was set. Whether a run can work here (is the engine
installed? are the captions whole?) is looked at when the command line names one of our options, or when tests
that need a run were collected: a project that only has the plugin installed pays nothing and never fails.

A pytest-xdist controller does not know what its workers collect, and an error in a worker's collection is an
internal error to it. So a worker fails the tests concerned and marks them as refused, and the controller
turns that into exit status 4.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl import properties
from pytest_sdxl.library import library
from pytest_sdxl.options import RESOLVED, Resolved
from pytest_sdxl.xdist import is_worker, worker_count
from sdxl_engine.errors import SdxlError, UsageError
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFORMANCE = "pytest_sdxl.conformance"
"""The package of the suite, as `--pyargs` names it."""

_REFUSAL = pytest.StashKey[str]()
_CHECKED = pytest.StashKey[set[RunSettings]]()


def check_values(resolved: Resolved) -> None:
    """Check every option that has a fixed set or range.

    Raises:
        UsageError: a value is outside.
    """
    for settings in resolved.runs:
        settings.check(dict(resolved.sources))
    target = resolved.json
    if target is None:
        return
    folder = next(parent for parent in target.parents if parent.exists())
    if target.is_dir() or not folder.is_dir():
        raise UsageError(
            "the results cannot be written there",
            got=target,
            expected="the path of a file",
            source=resolved.sources["json"],
        )


def check_environment(config: pytest.Config, settings: RunSettings) -> None:
    """Check, once per session, that these settings can work here.

    A broken file is not a usage error: it is left to the run, which fails its test with the same message.

    Raises:
        UsageError: they cannot.
    """
    checked = config.stash.setdefault(_CHECKED, set())
    if settings in checked:
        return
    try:
        library().check(settings)
    except UsageError:
        raise
    except SdxlError:
        pass
    checked.add(settings)


def check_configuration(config: pytest.Config) -> None:
    """What can be refused before anything is collected.

    Raises:
        UsageError: an option cannot work.
    """
    if config.getoption("help"):
        return
    resolved = config.stash[RESOLVED]
    check_values(resolved)
    if resolved.on_command_line and not config.getoption("collectonly"):
        for settings in resolved.runs:
            check_environment(config, _unscored(settings) if _conformance_alone(config) else settings)


def _conformance_alone(config: pytest.Config) -> bool:
    """Whether the command line asks for the conformance suite and nothing else."""
    suite = Path(__file__).parent / "conformance"

    def inside(argument: str) -> bool:
        name = argument.partition("::")[0]
        return name.startswith(CONFORMANCE) or (config.invocation_params.dir / name).resolve().is_relative_to(suite)

    return config.getoption("markexpr").strip() == "conformance" or all(map(inside, config.args))


def _unscored(settings: RunSettings) -> RunSettings:
    """The same, of a run that makes no scores and so needs no scorer."""
    return dataclasses.replace(settings, test_mode="PerformanceOnly")


def _too_many_workers(workers: int) -> UsageError:
    return UsageError(
        "performance is not measured beside other tests",
        got=f"{workers} pytest-xdist workers",
        expected="one process with the machine to itself",
        source="-n",
        fix="run the performance tests apart: pytest -n0 -m performance",
    )


def check_items(config: pytest.Config, measuring: Iterable[tuple[pytest.Item, RunSettings, bool]]) -> None:
    """Refuse collected tests that cannot be run as asked.

    Args:
        config: Of this process.
        measuring: Tests that need a run, their settings, and whether they measure performance.

    Raises:
        UsageError: in a session without workers; a worker marks the tests instead.
    """
    if config.getoption("collectonly"):
        return
    workers = worker_count(config)
    for item, settings, performance in measuring:
        try:
            if performance and workers > 1:
                raise _too_many_workers(workers)
            check_environment(config, settings)
        except UsageError as error:
            if not is_worker(config):
                raise
            item.stash[_REFUSAL] = str(error)


def fail_if_refused(item: pytest.Item) -> None:
    """Fail a test that `check_items` marked."""
    text = item.stash.get(_REFUSAL, None)
    if text is not None:
        item.user_properties.append((properties.REFUSED, text))
        pytest.fail(text, pytrace=False)
