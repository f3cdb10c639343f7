"""The accuracy gate: LoadGen's AccuracyOnly run, its CLIP and FID scores within the ranges of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sdxl.gates import assert_accuracy

if TYPE_CHECKING:
    from pytest_sdxl.runner import SdxlRun


@pytest.mark.accuracy
def test_accuracy(sdxl_run: SdxlRun) -> None:
    """Both scores of the images that LoadGen logged lie in their ranges."""
    assert_accuracy(sdxl_run("AccuracyOnly"))
