"""What a run gives: LoadGen's figures, scores, ranges and verdicts, as plain data that JSON can carry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class LoadgenResult:
    """One LoadGen test as its own logs tell it.

    Args:
        scenario: `Offline`.
        mode: `AccuracyOnly` or `PerformanceOnly`.
        samples_per_second: LoadGen's `result_samples_per_second`; None in accuracy mode.
        valid: LoadGen's verdict in performance mode; in accuracy mode, that no error was logged.
        samples: How many samples LoadGen issued.
        duration_s: LoadGen's own clock, seconds.
        errors: LoadGen's error lines, and where settings in effect differ from those asked for.
        log_dir: Where `mlperf_log_*.txt|json` lie.
        settings_requested: What was asked for.
        settings_effective: LoadGen's `effective_*` settings from `mlperf_log_detail.txt`.
        peak_memory_bytes: Peak resident memory of the process that ran the test and of its own, each one's peak added.
    """

    scenario: str
    mode: str
    samples_per_second: float | None
    valid: bool
    samples: int
    duration_s: float
    errors: tuple[str, ...]
    log_dir: Path
    settings_requested: dict[str, Any] = field(default_factory=dict)
    settings_effective: dict[str, Any] = field(default_factory=dict)
    peak_memory_bytes: int | None = None


INTERVAL_PERCENT = 95.0
"""Of the runs, how many have an interval that holds the expected score."""


@dataclass(frozen=True)
class Scores:
    """Accuracy of one run.

    Args:
        clip: Mean of 100 x cosine over the unique ids; higher is better.
        fid: Fréchet distance to the statistics file; lower is better.
        count: How many images.
        variant: Which metric networks: `mlperf` or `shapes`. Scores of different variants do not compare.
        identity: What the metric was computed with: sha256 of weights and statistics, activation, resize.
        clip_interval: Ends of the interval of `clip`, see `accuracy/interval.py`; None where there is none.
        fid_interval: Of `fid`; None for no more images than features.
    """

    clip: float
    fid: float
    count: int
    variant: str
    identity: dict[str, str] = field(default_factory=dict)
    clip_interval: tuple[float, float] | None = None
    fid_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Range:
    """A closed interval that a score must lie in, an infinite end of which is open; NaN and infinity lie in none."""

    lower: float
    upper: float

    @property
    def limited(self) -> bool:
        """Whether it has an end, and so judges more than that a score is a number."""
        return math.isfinite(self.lower) or math.isfinite(self.upper)

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.lower <= value <= self.upper


@dataclass(frozen=True)
class AccuracyRanges:
    """The ranges one gate applies, what they hold for (captions, metric variant), and how they came about."""

    name: str
    clip: Range
    fid: Range
    count: int
    origin: str
    variant: str = "mlperf"


@dataclass(frozen=True)
class Verdict:
    """Whether the scores of a run lie in the ranges, and the benchmark's own line that says so.

    Args:
        passed: None where no gate applies (another count of captions, another model).
        line: The benchmark's own.
        reason: Why it did not pass.
        gate: Which gate judged, and why that one.
        notes: Lines for the reader that decide nothing: intervals, labels, the verdicts of other gates.
    """

    passed: bool | None
    line: str
    reason: str = ""
    gate: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One LoadGen test of one configuration, scored and judged.

    Args:
        model: `shapes`, or the checkpoint's folder.
        model_opt: `NoOpt`, `DeepCache` or `DeepCachePruned`.
        engine: The engine that ran (never `auto`).
        precision: Of the networks.
        loadgen: LoadGen's figures.
        scores: In accuracy mode.
        ranges: The ranges the verdict was reached with.
        verdict: In accuracy mode.
        environment: Versions, processor, accelerator.
        diagnosis: Where the gate failed, which prompts lost against the baseline, for the reader.
        shard: `i/n` where the run is a share of one; its scores are not judged.
        deep_steps: The steps that ran the deep UNet, in the option's words (`0,2,4`); `unstated` for a pipeline of the
            user's.
        devices: How many devices drew side by side, each with an engine of its own.
    """

    model: str
    model_opt: str
    engine: str
    precision: str
    loadgen: LoadgenResult
    scores: Scores | None = None
    ranges: AccuracyRanges | None = None
    verdict: Verdict | None = None
    environment: dict[str, str] = field(default_factory=dict)
    diagnosis: str = ""
    shard: str | None = None
    deep_steps: str = ""
    devices: int = 1
