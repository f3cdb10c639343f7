"""What each subcommand of `sdxl-engine` does."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine import measure, run_summary
from sdxl_engine.accuracy.gate import choose
from sdxl_engine.engines.registry import AUTO, registered
from sdxl_engine.environment import environment
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import folder_written_whole, write_json
from sdxl_engine.models.source import model_of
from sdxl_engine.report import Result, document, plain, score_record
from sdxl_engine.run_captions import own_share
from sdxl_engine.scoring import merge, score_images

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from sdxl_engine.engines.registry import EngineEntry
    from sdxl_engine.results import Measurement
    from sdxl_engine.settings import RunSettings


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it has for `--json`."""

    passed: bool = True
    result: dict[str, Any] = field(default_factory=dict)


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a command's result, whole or not at all."""
    write_json(path, plain(result))


class _Narrator:
    """Prints progress on standard error, so that standard output holds results alone; at most about a line a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last >= 1 or ":" not in line:
            self._last = now
            print(line, file=sys.stderr, flush=True)


def run(settings: RunSettings, _arguments: argparse.Namespace) -> Outcome:
    """One LoadGen test, or both; prints the benchmark's own summary."""
    measure.check(settings)
    if settings.shard is not None and settings.test_mode != "AccuracyOnly":
        raise UsageError(
            "a performance run is not shared out",
            got=f"shard {settings.shard}, test mode {settings.test_mode}",
            expected="--test-mode AccuracyOnly",
        )
    both = ("AccuracyOnly", "PerformanceOnly")
    modes = both if settings.test_mode == "SubmissionRun" else (settings.test_mode,)
    measured: list[Measurement] = []
    tell = _Narrator()
    try:
        for mode in modes:
            result = measure.measure(settings, mode, tell)  # type: ignore[arg-type]
            measured.append(result)
    finally:
        # Where the second test breaks, the first one's result is not lost.
        if measured:
            print(run_summary.text(measured), end="")
    passed, line = run_summary.gate(measured)
    results = [Result.of(result, settings, Path.cwd()).to_json() for result in measured]
    return Outcome(passed is not False, document((passed, line), results))


def generate(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Draw captions to `<id>.png`; the folder appears when it is complete."""
    import numpy as np
    from PIL import Image

    from sdxl_engine.assemble import image_source
    from sdxl_engine.loadgen.in_flight import drawn

    measure.check(settings)
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise AssetError("the output folder is not empty", source=arguments.output, fix="name a new folder")
    model = model_of(settings)
    captions = own_share(settings, model)
    source, tell = image_source(settings.to_json()), _Narrator()
    with folder_written_whole(arguments.output) as aside:
        for batch, images in drawn(source, np.arange(len(captions))):
            for caption, image in zip(captions[batch], images, strict=True):
                Image.fromarray(image).save(aside / f"{caption.id}.png")
            tell(f"drawing: {batch.start + len(images)}/{len(captions)} images")
    source.close()
    return Outcome(result={"images": len(captions), "output": arguments.output})


def score(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Score a folder of pictures or an accuracy log, or merge the records of shards; judge where ranges hold."""
    model = model_of(settings)
    # Before the scoring and not after it: a gate that cannot be is refused at once.
    choose(settings, model, len(own_share(settings, model)))
    if arguments.action == "merge":
        scores = merge(arguments.records, settings, model, arguments.output)
    elif (arguments.images is None) == (arguments.log is None):
        raise UsageError(
            "there is nothing to score", expected="one of --images DIR and --log FILE, or merge RECORD ..."
        )
    else:
        scores = score_images(
            settings,
            model,
            arguments.log or arguments.images,
            _Narrator(),
            None if settings.resume else arguments.output,
        )
    ranges, verdict = measure.judged(settings, model, scores)
    print("\n".join([verdict.line, *(f"  {line}" for line in run_summary.verdict_lines(verdict))]))
    word = {True: "PASSED", False: "FAILED", None: "NOT JUDGED"}[verdict.passed]
    gate = (verdict.passed, f"{word} ({verdict.reason or '1 accuracy'})")
    return Outcome(verdict.passed is not False, document(gate, [score_record(model.name, scores, ranges, verdict)]))


def doctor(settings: RunSettings, _arguments: argparse.Namespace) -> Outcome:
    """Say what would run, and what keeps each engine from running here."""
    report = {
        "would run": measure.describe(settings),
        "engines": {name: _readiness(load()) for name, load in registered().items()},
        "environment": environment(),
    }
    measure.check(settings)
    return Outcome(result=report)


def _readiness(entry: EngineEntry) -> str:
    """One line: `ready`, or why the engine does not run here."""
    if entry.missing:
        return f"needs {', '.join(entry.missing)}: {entry.install}"
    try:
        entry.device(AUTO, source="this machine")
    except UsageError as error:
        return "; ".join([error.what, *(f"{name}: {text}" for name, text in error.parts.items())])
    return "ready"


COMMANDS: dict[str, Callable[[RunSettings, argparse.Namespace], Outcome]] = {
    "run": run,
    "generate": generate,
    "score": score,
    "doctor": doctor,
}
