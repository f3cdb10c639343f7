"""The header: what will be measured, if this session is likely to measure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_sdxl.library import library
from pytest_sdxl.options import RESOLVED
from pytest_sdxl.xdist import is_worker
from sdxl_engine.errors import SdxlError

if TYPE_CHECKING:
    import pytest

_MARKERS = re.compile(r"\b(accuracy|performance|conformance)\b")


def header(config: pytest.Config) -> list[str]:
    """The header lines; none where neither our options nor our markers are named."""
    resolved = config.stash[RESOLVED]
    if is_worker(config):
        return []
    if not resolved.sources and not _MARKERS.search(config.getoption("markexpr")):
        return []
    variants = ",".join(run.model_opt for run in resolved.runs)
    facts = {"model-opt": variants} | _described(config)
    lines = ["sdxl: " + ", ".join(f"{name}={value}" for name, value in facts.items())]
    elsewhere = [source for source in resolved.sources.values() if not source.startswith("--")]
    if elsewhere:
        lines.append("sdxl settings from: " + ", ".join(elsewhere))
    return lines


def _described(config: pytest.Config) -> dict[str, str]:
    settings = config.stash[RESOLVED].runs[0]
    try:
        described = library().describe(settings)
    except SdxlError as error:
        # A header must not stop the session: the check before the tests, or the run, says the same in full.
        return {"model": settings.model, "engine": settings.engine, "problem": error.what}
    return {name: value for name, value in described.items() if name not in ("model_opt", "model-opt")}
