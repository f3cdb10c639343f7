"""The option of `test_peers.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which contenders run."""
    parser.addoption("--peers", help="contenders of benchmarks/peers.py, with commas (default: all but compile)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave `test_peers.py`, which takes minutes and a GPU, out of `pytest benchmarks`: it runs where it is named."""
    if collection_path.name != "test_peers.py" or config.getoption("--peers") is not None:
        return None
    return True if not any("test_peers" in argument for argument in config.invocation_params.args) else None
