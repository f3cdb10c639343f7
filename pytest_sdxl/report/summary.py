"""The summary at the end: a table, the benchmark's own lines, and a line on how the gates came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from sdxl_engine.cache_schedule import other_steps, parse_deep_steps
from sdxl_engine.models.prompts import STEPS

if TYPE_CHECKING:
    import pytest

    from pytest_sdxl.recorder import Recorder, Test
    from sdxl_engine.report import Result

_COLUMNS = ("model-opt", "engine", "model", "samples/s", "valid", "CLIP", "FID", "peak GiB", "verdict")
_NONE = "-"


@dataclass
class _Row:
    """One configuration: an accuracy run, a performance run, or one of each."""

    runs: dict[str, Result]
    outcomes: list[str]

    def cells(self) -> tuple[str, ...]:
        any_run = next(iter(self.runs.values()))
        accuracy, performance = self.runs.get("AccuracyOnly"), self.runs.get("PerformanceOnly")
        valid = ("yes" if performance.valid else "NO") if performance is not None else _NONE
        peaks = [peak.value for run in self.runs.values() if (peak := run.metric("peak_memory")) is not None]
        return (
            _in_short(any_run),
            any_run.engine_and_devices,
            _short(any_run.model),
            _figure(performance, "samples_per_second", "{:.5g}"),
            valid,
            _figure(accuracy, "clip_score", "{:.3f}"),
            _figure(accuracy, "fid_score", "{:.3f}"),
            f"{max(peaks) / 2**30:.2f}" if peaks else _NONE,
            _worst(self.outcomes),
        )


def _variant(result: Result) -> str:
    """The variant, and its deep steps where they are not its own."""
    return ", ".join(filter(None, (result.model_opt, other_steps(result.model_opt, result.deep_steps))))


def _in_short(result: Result) -> str:
    """The variant, and how many steps are deep where they are not its own: the table is to fit a screen."""
    if not other_steps(result.model_opt, result.deep_steps):
        return result.model_opt
    return f"{result.model_opt} {len(parse_deep_steps(result.deep_steps))}/{STEPS}"


def _short(model: str) -> str:
    """A checkpoint's folder by its last part."""
    return PurePath(model).name if "/" in model else model


def _figure(result: Result | None, name: str, form: str) -> str:
    metric = result.metric(name) if result is not None else None
    return form.format(metric.value) if metric is not None else _NONE


def _worst(outcomes: list[str]) -> str:
    return next((word.upper() for word in ("failed", "skipped") if word in outcomes), "PASSED")


def _rows(recorder: Recorder) -> list[_Row]:
    """Runs of one configuration side by side, in the order of arrival."""
    rows: list[tuple[tuple[str, ...], _Row]] = []
    for _, test, result in recorder.results():
        key = (_variant(result), result.engine_and_devices, result.precision, result.model, result.scenario)
        row = next((row for known, row in rows if known == key and result.mode not in row.runs), None)
        if row is None:
            row = _Row({}, [])
            rows.append((key, row))
        row.runs[result.mode] = result
        row.outcomes.append(test.outcome)
    return [row for _, row in rows]


def _table(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """The rows under their columns; where the screen is too narrow, one figure a line."""
    widths = [max(len(cell) for cell in column) for column in zip(_COLUMNS, *rows, strict=True)]
    for between in (" | ", "  ", " "):
        lines = [
            between.join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()
            for cells in (_COLUMNS, *rows)
        ]
        if max(map(len, lines)) <= width:
            return lines
    size = max(map(len, _COLUMNS))
    return [f"{name + ':':<{size + 1}} {cell}" for cells in rows for name, cell in zip(_COLUMNS, cells, strict=True)]


def _subject(result: Result) -> str:
    score = result.metric("clip_score")
    metric = f", metric {score.variant}" if score is not None else ""
    return (
        f"{_variant(result)} on {result.engine_and_devices} ({result.precision}), {result.scenario}, "
        f"model {result.model}{metric}, {result.samples} samples:"
    )


def _official(result: Result) -> str:
    """The benchmark's own line for a result."""
    if result.mode == "AccuracyOnly":
        return str(result.verdict["line"]) if result.verdict is not None else "accuracy: not scored"
    from sdxl_engine.accuracy.official_report import performance_line

    speed = result.metric("samples_per_second")
    return performance_line(speed.value if speed is not None else None, valid=result.valid)


def _details(result: Result, test: Test) -> list[str]:
    lines = [f" {error}" for error in result.errors]
    if result.verdict is not None and result.verdict["passed"] is None and result.verdict["reason"]:
        lines.append(f" not judged: {result.verdict['reason']}")
    if lines or test.outcome == "failed":
        lines.append(f" logs: {result.log_dir}")
    return _judged_by(result) + lines


def _judged_by(result: Result) -> list[str]:
    """The gate and why that one, and what else its verdict has to say."""
    if result.verdict is None:
        return []
    gate = [f" gate: {result.verdict['gate']}"] if result.verdict["gate"] else []
    return gate + [f" {note}" for note in result.verdict["notes"]]


def write_summary(reporter: pytest.TerminalReporter, recorder: Recorder, verbosity: int, width: int) -> None:
    """Write the summary; with -q without the table, with -qq only the last line."""
    verdict = recorder.verdict()
    rows = [row.cells() for row in _rows(recorder)]
    if verbosity > -2:
        reporter.write_sep("=", "sdxl")
    if verbosity > -1 and rows:
        for line in _table(rows, width):
            reporter.write_line(line)
        reporter.write_line("")
    if verbosity > -2:
        for _, test, result in recorder.results():
            for line in (_subject(result), _official(result), *_details(result, test)):
                reporter.write_line(line)
    if recorder.problem is not None:
        reporter.write_line(recorder.problem, red=True)
    if verdict is not None:
        colour = {True: {"green": True}, False: {"red": True}, None: {"yellow": True}}[verdict.passed]
        reporter.write_line(f"sdxl gate: {verdict.line}", bold=True, **colour)
