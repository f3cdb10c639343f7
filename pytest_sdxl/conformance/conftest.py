"""The engine under test, as the options ask for it, and what it is compared with.

What needs torch is imported in the fixtures: collecting the suite, which `pytest -m accuracy` does too, stays cheap.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.options import RESOLVED
from sdxl_engine.errors import SdxlError, UsageError
from sdxl_engine.models.pruned import MODEL_OPT
from sdxl_engine.models.source import AUTO, SHAPES, ModelSource, resolve_model
from sdxl_engine.run_engine import engine_entry, open_engine
from sdxl_engine.run_system import BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pytest_sdxl.conformance.compare import Comparison
    from pytest_sdxl.conformance.inputs import Inputs
    from pytest_sdxl.conformance.reference import Reference
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.settings import RunSettings


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """An engine or a model that does not open says why, without the way there."""
    try:
        return (yield)
    except SdxlError as error:
        told = str(error)
    pytest.fail(told, pytrace=False)  # out of the handler, so that the error is not shown beside it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """So does a precision without bounds. What an engine raises when it runs keeps its traceback."""
    try:
        return (yield)
    except UsageError as error:
        told = str(error)
    pytest.fail(told, pytrace=False)


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> RunSettings:
    """What the options ask for; the model is `shapes` unless one is named."""
    asked = request.config.stash[RESOLVED].runs[0]
    return dataclasses.replace(asked, model=SHAPES) if asked.model == AUTO else asked


@pytest.fixture(scope="session")
def precision(settings: RunSettings) -> str:
    """The precision asked for, or the engine's default."""
    return engine_entry(settings).precision(settings.precision)


@pytest.fixture(scope="session")
def model(settings: RunSettings) -> ModelSource:
    """The model, its files compared with their manifest."""
    found = resolve_model(settings.model, settings.build_dir, settings.captions)
    found.check_variant(settings.model_opt)
    found.verify()
    return found


@pytest.fixture(scope="session")
def open_another(settings: RunSettings, model: ModelSource) -> Callable[[], Engine]:
    """Opens the engine under test once more; whoever calls it closes what it gets."""
    return lambda: open_engine(settings, model.checkpoint)


@pytest.fixture(scope="session")
def engine(open_another: Callable[[], Engine]) -> Iterator[Engine]:
    """The engine under test."""
    opened = open_another()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def reference(settings: RunSettings, model: ModelSource, engine: Engine) -> Reference:
    """Engine `torch` in float32, on the GPU if the engine under test is on one."""
    from pytest_sdxl.conformance.reference import reference

    # Only a pruned UNet makes other networks: runs of the other variants share what is computed.
    networks = settings.model_opt if settings.model_opt == MODEL_OPT else "NoOpt"
    return reference(model, str(engine.device), settings.build_dir / "engines", networks)


@pytest.fixture(scope="session")
def inputs(model: ModelSource, reference: Reference) -> Inputs:
    """What the networks are given."""
    from pytest_sdxl.conformance.inputs import Inputs

    return Inputs(model, reference)


@pytest.fixture
def compare(request: pytest.FixtureRequest, precision: str) -> Comparison:
    """Holds results to the bounds of the precision."""
    from pytest_sdxl.conformance.compare import Comparison

    return Comparison(request.node, precision)


@pytest.fixture(scope="session")
def most_images(engine: Engine) -> int:
    """The largest batch: what the engine declares, or the pipeline's where it declares no limit."""
    return engine.capabilities.most_images or BATCH_SIZE
