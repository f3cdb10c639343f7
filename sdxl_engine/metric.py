"""One figure of a result, with its unit, its direction and the range it has to lie in.

JSON has no NaN: a figure that is not finite is written as `"value": null, "not_finite": "nan"` (or `inf`,
`-inf`), so that a reader who ignores the second key meets a null and not a number.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.results import AccuracyRanges, LoadgenResult, Range, Scores


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


def loadgen_metrics(loadgen: LoadgenResult) -> tuple[Metric, ...]:
    """The figures that LoadGen gave: `duration`, and where it measured them `samples_per_second`, `peak_memory`."""
    metrics = [Metric("duration", float(loadgen.duration_s), "s", higher_is_better=False)]
    if loadgen.samples_per_second is not None:
        speed = float(loadgen.samples_per_second)
        metrics.append(Metric("samples_per_second", speed, "samples/s", higher_is_better=True))
    if loadgen.peak_memory_bytes is not None:
        peak = float(loadgen.peak_memory_bytes)
        metrics.append(Metric("peak_memory", peak, "bytes", higher_is_better=False))
    return tuple(metrics)


def score_metrics(scores: Scores, ranges: AccuracyRanges | None) -> tuple[Metric, Metric]:
    """Both scores: `clip_score`, `fid_score`; with the ranges they were judged by, if they were."""
    clip, fid = (_limits(ranges.clip), _limits(ranges.fid)) if ranges is not None else (None, None)
    return (
        Metric("clip_score", float(scores.clip), "100 x cosine", True, scores.variant, clip, scores.clip_interval),
        Metric("fid_score", float(scores.fid), "Fréchet distance", False, scores.variant, fid, scores.fid_interval),
    )


def _limits(limits: Range) -> tuple[float | None, float | None] | None:
    if not limits.limited:
        return None
    lower, upper = (end if math.isfinite(end) else None for end in (limits.lower, limits.upper))
    return lower, upper
