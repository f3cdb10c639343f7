"""What `sdxl-engine run` says of the measurements of one configuration: the benchmark's summary, and the gate."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.official_report import performance_line, summary_lines
from sdxl_engine.cache_schedule import other_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdxl_engine.results import Measurement, Verdict


def text(measured: Sequence[Measurement]) -> str:
    """The summary of one or more measurements of one configuration, to print as it is."""
    first = measured[0]
    # What NVIDIA's harness calls system and setting, then the scenario.
    setting = (
        f"{PurePath(first.model).name}-{first.engine}-{first.model_opt}-{first.precision}-{first.loadgen.scenario}"
    )
    devices = f"{first.devices} devices" if first.devices > 1 else ""
    return summary_lines(
        ", ".join(filter(None, (setting, devices, other_steps(first.model_opt, first.deep_steps)))),
        [line for result in measured for line in _lines(result)],
    )


def gate(measured: Sequence[Measurement]) -> tuple[bool | None, str]:
    """Whether all passed, and how many: those that failed if there are any, in the words of the plugin.

    None for a sound shard, which only its merger judges.
    """
    failed = [result for result in measured if not _passed(result)]
    shards = [result.shard for result in measured if result.shard is not None]
    if shards and not failed:
        return None, f"NOT JUDGED (shard {shards[0]})"
    counts = Counter(result.loadgen.mode for result in failed or measured)
    word = "FAILED" if failed else "PASSED"
    return not failed, f"{word} ({counts['AccuracyOnly']} accuracy, {counts['PerformanceOnly']} performance)"


def _lines(result: Measurement) -> list[str]:
    """The benchmark's own line, and below it what it rests on and what is wrong."""
    loadgen = result.loadgen
    if result.verdict is None:
        lines = [performance_line(loadgen.samples_per_second, valid=loadgen.valid)]
    else:
        lines = [result.verdict.line]
        if result.scores is not None:
            lines.append(f"  metrics {result.scores.variant}, {result.scores.count} captions")
        lines += [f"  {line}" for line in (*verdict_lines(result.verdict), *result.diagnosis.splitlines())]
    return lines + [f"  LoadGen: {error}" for error in loadgen.errors]


def verdict_lines(verdict: Verdict) -> list[str]:
    """What there is to say of a verdict beside the benchmark's own line: the gate, intervals, why it did not pass."""
    gate = f"gate: {verdict.gate}" if verdict.gate else ""
    return [line for line in (gate, *verdict.notes, verdict.reason) if line]


def _passed(result: Measurement) -> bool:
    # A performance run has no verdict, and that on a shard is left open.
    good = (True, None) if result.shard is not None else (True,)
    judged = result.verdict is None or result.verdict.passed in good
    return judged and result.loadgen.valid and not result.loadgen.errors
