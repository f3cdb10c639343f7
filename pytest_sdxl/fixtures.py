"""The fixtures; the first line of each docstring is what `pytest --fixtures` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_sdxl.library import Pipeline, library
from pytest_sdxl.options import RESOLVED
from sdxl_engine.errors import SdxlError
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_sdxl.runner import SdxlRun


@pytest.fixture(scope="session")
def sdxl_settings(request: pytest.FixtureRequest) -> RunSettings:
    """The configuration under test, a RunSettings; a test runs once per --model-opt."""
    settings = getattr(request, "param", None)
    if settings is None:
        runs = request.config.stash[RESOLVED].runs
        if len(runs) > 1:
            pytest.fail(
                "several --model-opt are given, so a test has to name an sdxl fixture among its arguments; "
                "getfixturevalue cannot choose",
                pytrace=False,
            )
        settings = runs[0]
    if not isinstance(settings, RunSettings):
        pytest.fail(f"sdxl_settings takes a RunSettings, got {settings!r}", pytrace=False)
    return settings


@pytest.fixture(scope="session")
def sdxl_pipeline(sdxl_settings: RunSettings) -> Iterator[Pipeline]:
    """The pipeline under test in this process: generate(indices) draws; closed at the end."""
    try:
        pipeline = library().open_pipeline(sdxl_settings)
    except SdxlError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield pipeline
    finally:
        pipeline.close()


@pytest.fixture(scope="session")
def sdxl_engine(sdxl_pipeline: Pipeline) -> Any:
    """The engine that runs the five networks of sdxl_pipeline."""
    return sdxl_pipeline.engine


@pytest.fixture(scope="session")
def sdxl_dataset(sdxl_settings: RunSettings) -> Sequence[Any]:
    """The captions of the configuration under test, in the order of their file."""
    try:
        return library().captions(sdxl_settings)
    except SdxlError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def sdxl_run(request: pytest.FixtureRequest, sdxl_settings: RunSettings) -> SdxlRun:
    """Runs LoadGen in a child process, "AccuracyOnly" or "PerformanceOnly", giving a measurement."""
    from pytest_sdxl.runner import SdxlRun

    item: pytest.Item = request.node
    return SdxlRun(item, sdxl_settings)
