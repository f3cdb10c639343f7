from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def build_dir():
    """Where the tests' runs leave exported engines and logs; engines are found again by the next session."""
    return Path(__file__).parents[1] / "build" / "tests"
