"""The performance gate: LoadGen's PerformanceOnly run is VALID, and its samples per second is the number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.gates import assert_performance

if TYPE_CHECKING:
    from pytest_sdxl.runner import SdxlRun


@pytest.mark.performance
def test_performance(sdxl_run: SdxlRun) -> None:
    """LoadGen calls the run VALID and gives it a speed."""
    assert_performance(sdxl_run("PerformanceOnly"))
