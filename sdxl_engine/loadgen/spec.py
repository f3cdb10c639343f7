"""What one LoadGen test is asked to do, in a form that crosses to the child process as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdxl_engine.errors import AssetError, UsageError, unknown_choice
from sdxl_engine.files import read_json, write_json
from sdxl_engine.loadgen.profile import DEFAULT_PROFILE, PROFILES

SCENARIOS = ("Offline",)
MODES = ("AccuracyOnly", "PerformanceOnly")


@dataclass(frozen=True, kw_only=True)
class LoadgenSpec:
    """One LoadGen test. Every value is checked when the object is made.

    Args:
        mode: One of `MODES`. AccuracyOnly answers each sample once and ignores the two minima below.
        sample_count: Captions in the sample library; accuracy mode answers the indices [0, sample_count).
        log_dir: Where LoadGen's logs, `child.log` and `spec.json` go; those of an older test are removed
            first.
        factory: `module:callable`; called in the child with `factory_options`, returns an `ImageSource`.
        factory_options: Keyword arguments of the factory; values that JSON can carry.
        sink: `module:callable`; called in the child with `sink_options` and the source's `batch_size`, returns a
            `Sink`, which takes the images in LoadGen's place. None gives LoadGen the images themselves.
        sink_options: Keyword arguments of the sink; values that JSON can carry.
        scenario: One of `SCENARIOS`.
        performance_sample_count: How many samples LoadGen asks the library to hold at once: the set that a
            performance test draws from, and the size of a query in accuracy mode, where a smaller one bounds
            the memory of LoadGen's log queue. None takes `sample_count`. An official run needs 5000.
        min_duration_ms: Least duration of a performance test for LoadGen to call it VALID, milliseconds.
        min_query_count: Least samples of a performance test (in Offline LoadGen counts samples, not queries).
        expected_qps: Samples per second to size the one Offline query with: LoadGen issues
            max(min_query_count, 1.1 x expected_qps x min_duration). Where the source draws faster than this once it
            is warmed up, what was measured takes its place: too low a value would give an INVALID run. Too high a
            value gives one that takes that much longer.
        profile: A name in `PROFILES`.
        sys_path: Folders put in front of the child's module search path, for a factory that is not installed.
            The child does not look for modules in the current folder unless it is named here.
        start_timeout_s: Limit for importing, loading and warming up, seconds.
        stall_timeout_s: Limit between two answered batches, and from the last one to the end; seconds.
    """

    mode: str
    sample_count: int
    log_dir: Path
    factory: str
    factory_options: dict[str, Any] = field(default_factory=dict)
    sink: str | None = None
    sink_options: dict[str, Any] = field(default_factory=dict)
    scenario: str = "Offline"
    performance_sample_count: int | None = None
    min_duration_ms: int = 600_000
    min_query_count: int = 5000
    expected_qps: float = 1.0
    profile: str = DEFAULT_PROFILE
    sys_path: tuple[str, ...] = ()
    start_timeout_s: float = 1800.0
    stall_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name, allowed in (("scenario", SCENARIOS), ("mode", MODES), ("profile", tuple(PROFILES))):
            if getattr(self, name) not in allowed:
                raise unknown_choice(f"LoadGen {name}", getattr(self, name), allowed, source=f"LoadgenSpec.{name}")
        for name in ("sample_count", "min_query_count", "loaded_count"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("expected_qps", "start_timeout_s", "stall_timeout_s"):
            self._require(name, getattr(self, name) > 0, "more than 0")
        self._require("min_duration_ms", self.min_duration_ms >= 0, "0 or more")
        self._require("loaded_count", self.loaded_count <= self.sample_count, f"at most {self.sample_count} samples")
        for name in ("factory", "sink"):
            module, _, function = (getattr(self, name) or "no:sink").partition(":")
            self._require(name, bool(module and function), "module:callable")
            try:
                json.dumps(getattr(self, f"{name}_options"), allow_nan=False)
            except (TypeError, ValueError) as error:
                self._require(f"{name}_options", False, f"values that JSON can carry ({error})")

    @property
    def loaded_count(self) -> int:
        """`performance_sample_count` with its default filled in."""
        return self.sample_count if self.performance_sample_count is None else self.performance_sample_count

    def write(self, path: Path) -> None:
        """Write the spec as JSON, whole or not at all."""
        write_json(path, dataclasses.asdict(self) | {"log_dir": str(self.log_dir)})

    @classmethod
    def read(cls, path: Path) -> LoadgenSpec:
        """Read what `write` wrote.

        Raises:
            AssetError: the file is missing, is not JSON, or has other fields than a spec.
            UsageError: a value cannot work.
        """
        values = read_json(path, "the LoadGen spec")
        names = {spec_field.name for spec_field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            got = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise AssetError("the LoadGen spec has the wrong fields", got=got, expected=sorted(names), source=path)
        return cls(**values | {"log_dir": Path(values["log_dir"]), "sys_path": tuple(values["sys_path"])})

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            # `loaded_count` is what the user set as `performance_sample_count`.
            public = name.replace("loaded_count", "performance_sample_count")
            got = repr(getattr(self, name))
            raise UsageError(
                f"a LoadGen test cannot run with this {public}",
                got=got,
                expected=expected,
                source=f"LoadgenSpec.{public}",
            )
