import pytest

from sdxl_engine.models.spec import ModelSpec, read_spec
from sdxl_engine.shapes.bundle import BUNDLE, verified


@pytest.fixture(scope="session")
def bundle():
    return verified(BUNDLE)


@pytest.fixture(scope="session")
def spec(bundle) -> ModelSpec:
    return read_spec(bundle)
