"""The gates: a measurement that is not good, or that nothing can judge, fails its test.

Each message says what was measured, what would have been right and where the logs lie, so that it can be read
without the test at hand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import pytest

from sdxl_engine.accuracy.ranges import OFFICIAL, obstacle
from sdxl_engine.cache_schedule import other_steps
from sdxl_engine.errors import AccuracyError, LoadgenError, SdxlError

if TYPE_CHECKING:
    from sdxl_engine.results import AccuracyRanges, Measurement, Range, Scores, Verdict

UNGATED_MODEL = "random"


def skip_ungated(model: str) -> None:
    """Skip where no scores can exist: random weights draw noise, and a score of noise would be a fake."""
    if model == UNGATED_MODEL:
        pytest.skip(
            f"model {UNGATED_MODEL!r} has random weights, so it has no accuracy to gate; "
            "use --sdxl-model=shapes or a checkpoint's folder"
        )


def _subject(measurement: Measurement) -> str:
    other = other_steps(measurement.model_opt, measurement.deep_steps)
    steps = f"{other}, " if other else ""
    return (
        f"{measurement.model_opt} on {measurement.engine} ({measurement.precision}), {steps}"
        f"model {measurement.model}, {measurement.loadgen.samples} samples"
    )


def _fail(error: SdxlError, diagnosis: str = "") -> NoReturn:
    pytest.fail("\n\n".join(filter(None, [str(error), diagnosis])), pytrace=False)


def _check_run(measurement: Measurement, mode: str) -> None:
    """Fail where LoadGen itself reports that the run is not what was asked for."""
    loadgen = measurement.loadgen
    if loadgen.mode != mode:
        _fail(
            LoadgenError(
                f"this gate judges another kind of run: {_subject(measurement)}",
                got=loadgen.mode,
                expected=mode,
                source=loadgen.log_dir,
                fix=f"measure with sdxl_run({mode!r})",
            )
        )
    if loadgen.errors or not loadgen.valid:
        _fail(
            LoadgenError(
                f"the LoadGen run is INVALID: {_subject(measurement)}",
                got="; ".join(loadgen.errors) or "Result is INVALID",
                expected="a VALID run without errors",
                source=loadgen.log_dir,
                fix="read mlperf_log_summary.txt and mlperf_log_detail.txt there",
            )
        )


def _outside(name: str, value: float, limits: Range) -> str | None:
    """What is wrong with a score, or None."""
    if value in limits:
        return None
    span = f"{name} {value:.8g}, valid range [{limits.lower:.8g}, {limits.upper:.8g}]"
    if not math.isfinite(value):
        return f"{span}: not a number" if math.isnan(value) else f"{span}: infinite"
    by = limits.lower - value if value < limits.lower else value - limits.upper
    return f"{span}: {by:.4g} too {'low' if value < limits.lower else 'high'}"


def _gate(verdict: Verdict) -> str:
    """Which gate judged, and why that one, to end a sentence with."""
    return f"; gate: {verdict.gate}" if verdict.gate else ""


def _check_scores(measurement: Measurement, scores: Scores, ranges: AccuracyRanges, verdict: Verdict) -> None:
    problems = [
        _outside("CLIP_SCORE", scores.clip, ranges.clip),
        _outside("FID_SCORE", scores.fid, ranges.fid),
        obstacle(scores, ranges),
        "ranges that are called official and are not" if ranges.name == OFFICIAL.name and ranges != OFFICIAL else None,
    ]
    wrong = [problem for problem in problems if problem]
    if not wrong and verdict.passed:
        return
    _fail(
        AccuracyError(
            f"accuracy is out of range: {_subject(measurement)}, metric {scores.variant}",
            got="; ".join(wrong) or verdict.line,
            expected=f"both scores within the ranges {ranges.name} ({ranges.origin}){_gate(verdict)}",
            source=measurement.loadgen.log_dir,
        ),
        measurement.diagnosis,
    )


def assert_accuracy(measurement: Measurement) -> None:
    """Fail unless an accuracy run is sound, scored, judged, and both scores lie in their ranges.

    Args:
        measurement: Of `sdxl_run("AccuracyOnly")`. The test is skipped for model `random`, which has no scores, and
            for a shard, which is judged when it is merged with the others.
    """
    _check_run(measurement, "AccuracyOnly")
    skip_ungated(measurement.model)
    scores, ranges, verdict = measurement.scores, measurement.ranges, measurement.verdict
    if scores is None or verdict is None:
        _fail(
            AccuracyError(
                f"the run was not scored: {_subject(measurement)}",
                got="no scores" if scores is None else "no verdict",
                expected="CLIP and FID scores and a verdict on them",
                source=measurement.loadgen.log_dir,
            )
        )
    if measurement.shard is not None and verdict.passed is None:
        pytest.skip(verdict.reason)
    if ranges is None or verdict.passed is None:
        finite = math.isfinite(scores.clip) and math.isfinite(scores.fid)
        _fail(
            AccuracyError(
                f"no gate can judge this run: {_subject(measurement)}, metric {scores.variant}",
                got=f"CLIP_SCORE {scores.clip:.8g}, FID_SCORE {scores.fid:.8g}" + ("" if finite else " (not finite)"),
                expected=(verdict.reason or "ranges for this model and count of captions") + _gate(verdict),
                source=measurement.loadgen.log_dir,
                fix="leave out --sdxl-samples, --sdxl-captions and steps of your own, so that the model's ranges hold, "
                "or give ranges with --sdxl-clip-range and --sdxl-fid-range",
            )
        )
    _check_scores(measurement, scores, ranges, verdict)


def assert_performance(measurement: Measurement) -> None:
    """Fail unless a performance run is VALID, free of errors, and has a speed.

    Args:
        measurement: Of `sdxl_run("PerformanceOnly")`.
    """
    _check_run(measurement, "PerformanceOnly")
    speed = measurement.loadgen.samples_per_second
    if speed is None or not math.isfinite(speed) or speed <= 0:
        _fail(
            LoadgenError(
                f"the run has no speed: {_subject(measurement)}",
                got=f"result_samples_per_second: {speed}",
                expected="a number above 0",
                source=measurement.loadgen.log_dir,
            )
        )
