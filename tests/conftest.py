from pathlib import Path

import pytest

ROOT = Path(__file__).parent

LONG = (
    "agreement/test_reference.py",
    "meta/test_sabotage.py",
    "meta/test_conformance.py",
    "integration/test_conformance.py",
    "unit/test_pipeline.py",
    "unit/shapes/test_train.py",
    "unit/engines/tensorrt/test_rtx_plans.py",
    "meta/test_resume.py",
)
"""The files that take longest, the longest first. A worker takes whole files; one that starts late is waited for."""


def pytest_collection_modifyitems(items):
    order = {ROOT / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def build_dir():
    """Where the tests' runs leave exported engines and logs; engines are found again by the next session."""
    return ROOT.parent / "build" / "tests"
