"""One result as it travels and as it is written: a measurement flattened to what JSON can carry.

A worker sends it to the reporting process as one JSON string (a user property of the test), `--sdxl-json`
writes the same object, and the report is drawn from it.

JSON has no NaN: a figure that is not finite is written as `"value": null, "not_finite": "nan"` (or `inf`,
`-inf`), so that a reader who ignores the second key meets a null and not a number.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.results import Measurement, Range
    from sdxl_engine.settings import RunSettings

SCHEMA_VERSION = 1


def plain(value: object) -> Any:
    """`value` made of what JSON has; what is neither a number, a text nor a container becomes its text."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    item = getattr(value, "item", None)  # numpy's and torch's scalars
    return plain(item()) if callable(item) else str(value)


@dataclass(frozen=True)
class Metric:
    """One figure of a result.

    Args:
        name: `samples_per_second`, `clip_score`, `fid_score`, `peak_memory` or `duration`.
        value: May be NaN.
        unit: Of the value, in words.
        higher_is_better: The direction.
        variant: For a score, which metric networks gave it; scores of different variants do not compare.
        valid_range: For a gated score, the limits it has to lie in, both ends included; None for an open end.
        interval: For a score, the ends of its 95 % interval, where it has one.
    """

    name: str
    value: float
    unit: str
    higher_is_better: bool
    variant: str | None = None
    valid_range: tuple[float | None, float | None] | None = None
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        finite = math.isfinite(self.value)
        record = dataclasses.asdict(self) | {"value": self.value if finite else None}
        return record if finite else record | {"not_finite": repr(self.value)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Metric:
        """The inverse of `to_json`."""
        fields = dict(record)
        not_finite = fields.pop("not_finite", None)
        pairs = {name: tuple(fields[name]) for name in ("valid_range", "interval") if fields[name] is not None}
        return cls(**fields | pairs | {"value": float(not_finite) if not_finite is not None else fields["value"]})


def _limits(limits: Range | None) -> tuple[float | None, float | None] | None:
    if limits is None or not limits.limited:
        return None
    lower, upper = (end if math.isfinite(end) else None for end in (limits.lower, limits.upper))
    return lower, upper


def _metrics(measurement: Measurement) -> tuple[Metric, ...]:
    loadgen, scores, ranges = measurement.loadgen, measurement.scores, measurement.ranges
    metrics = [Metric("duration", float(loadgen.duration_s), "s", higher_is_better=False)]
    if loadgen.samples_per_second is not None:
        speed = float(loadgen.samples_per_second)
        metrics.append(Metric("samples_per_second", speed, "samples/s", higher_is_better=True))
    if loadgen.peak_memory_bytes is not None:
        peak = float(loadgen.peak_memory_bytes)
        metrics.append(Metric("peak_memory", peak, "bytes", higher_is_better=False))
    if scores is not None:
        clip_range, fid_range = (ranges.clip, ranges.fid) if ranges is not None else (None, None)
        metrics += [
            Metric(
                "clip_score",
                float(scores.clip),
                "100 x cosine",
                True,
                scores.variant,
                _limits(clip_range),
                scores.clip_interval,
            ),
            Metric(
                "fid_score",
                float(scores.fid),
                "Fréchet distance",
                False,
                scores.variant,
                _limits(fid_range),
                scores.fid_interval,
            ),
        ]
    return tuple(metrics)


def _relative(path: Path, root: Path) -> str:
    absolute = root / path
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


@dataclass(frozen=True)
class Result:
    """One LoadGen test of one configuration, as reported; see `sdxl_engine.results` for what the fields mean.

    Args:
        asked: The run settings as the options gave them, `auto` included.
        verdict: `passed`, `line` and `reason`; None in performance mode.
        metric_identity: What the scores were computed with, digests of weights and statistics included; empty in
            performance mode.
        log_dir: Relative to pytest's root folder where it lies below it.
    """

    mode: str
    scenario: str
    model: str
    model_opt: str
    engine: str
    precision: str
    samples: int
    valid: bool
    log_dir: str
    metrics: tuple[Metric, ...]
    errors: tuple[str, ...] = ()
    verdict: Mapping[str, Any] | None = None
    metric_identity: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    settings_requested: Mapping[str, Any] = field(default_factory=dict)
    settings_effective: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, measurement: Measurement, settings: RunSettings, root: Path) -> Result:
        """The result that a measurement made with `settings` gives; `root` is pytest's root folder."""
        loadgen = measurement.loadgen
        return cls(
            mode=loadgen.mode,
            scenario=loadgen.scenario,
            model=measurement.model,
            model_opt=measurement.model_opt,
            engine=measurement.engine,
            precision=measurement.precision,
            samples=loadgen.samples,
            valid=loadgen.valid,
            log_dir=_relative(loadgen.log_dir, root),
            metrics=_metrics(measurement),
            errors=loadgen.errors,
            verdict=plain(dataclasses.asdict(measurement.verdict)) if measurement.verdict else None,
            metric_identity=plain(measurement.scores.identity) if measurement.scores else {},
            asked=plain(dataclasses.asdict(settings)),
            settings_requested=plain(loadgen.settings_requested),
            settings_effective=plain(loadgen.settings_effective),
            environment=plain(measurement.environment),
        )

    def metric(self, name: str) -> Metric | None:
        """The figure called `name`, if this result has it."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self) | {"metrics": [metric.to_json() for metric in self.metrics]}

    def dumps(self) -> str:
        """As one line of JSON."""
        return json.dumps(self.to_json(), allow_nan=False, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Result:
        """The inverse of `dumps`."""
        fields = json.loads(text)
        metrics = tuple(Metric.from_json(record) for record in fields["metrics"])
        return cls(**fields | {"metrics": metrics, "errors": tuple(fields["errors"])})
