"""What the plugin knows of pytest-xdist, read from what xdist leaves on the config, if it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def _worker_input(config: pytest.Config) -> dict[str, Any] | None:
    return getattr(config, "workerinput", None)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for a controller, which collects the results and reports them."""
    return _worker_input(config) is not None


def worker_count(config: pytest.Config) -> int:
    """How many processes run tests side by side; 1 without xdist."""
    worker_input = _worker_input(config)
    return int(worker_input["workercount"]) if worker_input is not None else 1
