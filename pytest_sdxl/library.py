"""The one seam between the plugin and the library's runs: `sdxl_engine.measure`, imported when first used.

Everything that measures, checks or describes a run goes through `library()`, so loading the plugin costs none
of it, and a test can put another module in its place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sdxl_engine.results import Measurement
    from sdxl_engine.settings import RunSettings

Mode = Literal["AccuracyOnly", "PerformanceOnly"]
"""One LoadGen test; `SubmissionRun` asks for both of them, one after the other."""

MODES = get_args(Mode)


class Pipeline(Protocol):
    """A pipeline under test, opened in this process."""

    @property
    def engine(self) -> Any:
        """The engine that runs the networks."""

    def generate(self, indices: Sequence[int]) -> Any:
        """Images, (N, H, W, 3) uint8 RGB, of the captions at `indices`."""

    def close(self) -> None:
        """Free the networks."""


class Library(Protocol):
    """What the plugin needs of `sdxl_engine.measure`."""

    def measure(self, settings: RunSettings, mode: Mode, progress: Callable[[str], None] | None = None) -> Measurement:
        """Run one LoadGen test in a child process; in accuracy mode, score and judge it."""

    def describe(self, settings: RunSettings) -> dict[str, str]:
        """What `auto` and the defaults stand for here, without importing a heavy library."""

    def check(self, settings: RunSettings) -> None:
        """Raise a `UsageError` where these settings cannot work here, without importing a heavy library."""

    def captions(self, settings: RunSettings) -> Sequence[Any]:
        """The captions of an accuracy run, in the order of their file."""

    def open_pipeline(self, settings: RunSettings) -> Pipeline:
        """The pipeline under test, in this process."""


def library() -> Library:
    """The module `sdxl_engine.measure`."""
    return cast("Library", importlib.import_module("sdxl_engine.measure"))
