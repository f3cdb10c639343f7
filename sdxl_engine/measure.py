"""One benchmark run, whole: check, run LoadGen in its child process, score the logged images, judge the scores.

The plugin and the command line both call this module and nothing below it. Importing it is cheap.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdxl_engine.accuracy.gate import choose
from sdxl_engine.accuracy.official_files import require_files
from sdxl_engine.accuracy.official_report import write_reports
from sdxl_engine.accuracy.ranges import OFFICIAL
from sdxl_engine.accuracy.records import RECORD, read_record
from sdxl_engine.environment import environment
from sdxl_engine.errors import AccuracyError, AssetError, LoadgenError, UnavailableError, UsageError
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG
from sdxl_engine.loadgen.heartbeat import RUNNING
from sdxl_engine.loadgen.runner import run_loadgen
from sdxl_engine.loadgen.spec import LoadgenSpec
from sdxl_engine.models.source import ModelSource, model_of
from sdxl_engine.results import AccuracyRanges, Measurement, Scores, Verdict
from sdxl_engine.run_captions import own_share
from sdxl_engine.run_engine import engine_entry, engine_name, expected_qps, precision_in_effect, run_devices
from sdxl_engine.run_header import find_unfinished
from sdxl_engine.run_system import other_schedule, schedule_in_effect, system_of
from sdxl_engine.scoring import check_log, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.assets.captions import Caption
    from sdxl_engine.loadgen.heartbeat import Progress
    from sdxl_engine.pipeline import Pipeline
    from sdxl_engine.settings import RunSettings

Mode = Literal["AccuracyOnly", "PerformanceOnly"]
_SCORER_NEEDS = ("torch", "open_clip", "torchvision", "pytorch_fid", "safetensors", "PIL")


def check(settings: RunSettings) -> None:
    """Find out, without running anything, whether these settings can work here.

    Raises:
        UsageError: a value is wrong, or there is no such gate for it; UnavailableError: something is not installed.
        AssetError: the captions file or the file of ranges is malformed.
    """
    settings.check()
    model = model_of(settings)
    if settings.pipeline is None:
        model.check_variant(settings.model_opt)
        engine_entry(settings)
    own = own_share(settings, model)
    if settings.test_mode != "PerformanceOnly":
        choose(settings, model, len(own))
    missing = [name for name in _SCORER_NEEDS if importlib.util.find_spec(name) is None]
    if missing and settings.test_mode != "PerformanceOnly":
        raise UnavailableError(
            "accuracy cannot be scored here",
            got="no module " + ", ".join(missing),
            expected=", ".join(_SCORER_NEEDS),
            fix="pip install 'pytest-sdxl[metrics]'",
        )


def describe(settings: RunSettings) -> dict[str, str]:
    """What `auto` and the defaults stand for here, for a header line."""
    model, system = model_of(settings), system_of(settings)
    return {
        "model": model.name,
        **({} if system is None else {"system": system.line}),
        "engine": "own pipeline" if settings.pipeline else engine_name(settings),
        **({"deep steps": schedule_in_effect(settings)} if other_schedule(settings) else {}),
        "accuracy samples": str(_samples(settings, model, "AccuracyOnly")),
        "performance samples": str(_samples(settings, model, "PerformanceOnly")),
    }


def captions(settings: RunSettings) -> list[Caption]:
    """The captions of an accuracy run, in the order of their file."""
    model = model_of(settings)
    return own_share(settings, model)


def open_pipeline(settings: RunSettings) -> Pipeline:
    """The pipeline of these settings in this process; see `sdxl_engine.assemble`."""
    from sdxl_engine.assemble import open_pipeline as assemble

    return assemble(settings)


def measure(settings: RunSettings, mode: Mode, progress: Callable[[str], None] | None = None) -> Measurement:
    """Run one LoadGen test; in accuracy mode score its images and judge the scores.

    Args:
        settings: What to run.
        mode: Which of LoadGen's tests; `settings.test_mode` is the caller's business.
        progress: Called with a line of text as the run goes on.

    Raises:
        SdxlError: see `check`, `find_unfinished`, `run_loadgen`, `check_log` and `scores_of`.
    """
    tell = progress or (lambda _line: None)
    if mode == "PerformanceOnly" and settings.shard is not None:
        raise UsageError(
            "a performance run is not shared out",
            got=f"shard {settings.shard}",
            expected="shards of an accuracy run alone",
            fix="pytest -m accuracy, or sdxl-engine run --test-mode AccuracyOnly",
        )
    model = model_of(settings)
    # Before the run and not after it: the images take half an hour.
    if mode == "AccuracyOnly" and model.metric_variant == OFFICIAL.variant:
        require_files(model.metrics)
    samples = _samples(settings, model, mode)
    if mode == "AccuracyOnly":
        choose(settings, model, samples)
    log_dir = _log_dir(settings, model, mode)
    try:
        result = run_loadgen(_spec(settings, model, mode, samples, log_dir), _narrator(tell))
    except (LoadgenError, AccuracyError) as error:
        error.parts |= _what_is_kept(log_dir / RECORD)
        raise
    scores, ranges, verdict, diagnosis = None, None, None, ""
    if mode == "AccuracyOnly":
        own, record = own_share(settings, model), read_record(log_dir / RECORD)
        log_sha256 = check_log(log_dir / ACCURACY_LOG, record, own)
        scores = scores_of(record, model, own)
        ranges, verdict = judged(settings, model, scores)
        # Their formats know neither a part of a run nor a score that is not a number; the verdict says both.
        if settings.shard is None:
            with contextlib.suppress(AccuracyError):
                write_reports(log_dir, scores.clip, scores.fid, log_sha256)
        if verdict.passed is False:
            tell("comparing with the baseline")
            diagnosis = _diagnosis(settings, model, own, log_dir)
    return Measurement(
        model=model.name,
        model_opt=settings.model_opt,
        deep_steps=schedule_in_effect(settings),
        engine=engine_name(settings),
        precision=precision_in_effect(settings),
        loadgen=result,
        scores=scores,
        ranges=ranges,
        verdict=verdict,
        environment=environment(),
        diagnosis=diagnosis,
        shard=settings.shard,
        devices=len(run_devices(settings)),
    )


def _diagnosis(settings: RunSettings, model: ModelSource, own: list[Caption], log_dir: Path) -> str:
    from sdxl_engine.accuracy.diagnosis import explain

    return explain(log_dir, settings.baseline, model, {caption.id: caption.text for caption in own}, log_dir)


def _what_is_kept(record: Path) -> dict[str, str]:
    """For the error of a run that broke off: what it has scored, and how to go on from there."""
    try:
        scored = len(read_record(record).clip)
    except AssetError:
        return {}
    if not scored:
        return {}
    return {"resume": f"{scored} images are scored: --sdxl-resume={record.parent}, or sdxl-engine run --resume"}


def _samples(settings: RunSettings, model: ModelSource, mode: Mode) -> int:
    if mode == "AccuracyOnly":
        return len(own_share(settings, model))
    return settings.samples if settings.samples is not None else model.performance_samples


def _log_dir(settings: RunSettings, model: ModelSource, mode: Mode) -> Path:
    if mode == "AccuracyOnly" and settings.resume is not None:
        return find_unfinished(settings, model).parent
    moment = datetime.now(UTC).strftime("%Y.%m.%d-%H.%M.%S.%f")[:-3]
    folder = settings.build_dir / "logs" / moment / "stable-diffusion-xl" / settings.scenario
    return folder / settings.model_opt / mode


def _spec(settings: RunSettings, model: ModelSource, mode: Mode, samples: int, log_dir: Path) -> LoadgenSpec:
    scored = mode == "AccuracyOnly"
    return LoadgenSpec(
        scenario=settings.scenario,
        mode=mode,
        sample_count=samples,
        min_query_count=samples,
        min_duration_ms=model.min_duration_ms,
        log_dir=log_dir,
        expected_qps=expected_qps(settings),
        stall_timeout_s=settings.timeout_s,
        factory="sdxl_engine.assemble:image_source",
        factory_options={"settings": settings.to_json()},
        sink="sdxl_engine.live_scoring:live_scoring" if scored else None,
        sink_options={"settings": settings.to_json(), "folder": str(log_dir.absolute())} if scored else {},
        # A pipeline of the user's is looked for where the command was given.
        sys_path=(str(Path.cwd()),) if settings.pipeline else (),
    )


def _narrator(tell: Callable[[str], None]) -> Callable[[Progress], None]:
    """Turn LoadGen's heartbeats into lines, one whenever the phase or the count changes."""
    last = ("", -1)
    began = time.monotonic()

    def narrate(beat: Progress) -> None:
        nonlocal last, began
        if (beat.phase, beat.done) == last:
            return
        if beat.phase != last[0]:
            began = time.monotonic()
        last = (beat.phase, beat.done)
        if beat.phase == RUNNING and beat.total:
            rate = beat.done / max(1e-9, time.monotonic() - began)
            tell(f"{beat.phase}: {beat.done}/{beat.total} samples, {rate:.2f} samples/s")
        else:
            tell(beat.phase)

    return narrate


def judged(settings: RunSettings, model: ModelSource, scores: Scores) -> tuple[AccuracyRanges | None, Verdict]:
    """The ranges of the gate that holds for this run, and the verdict."""
    gate = choose(settings, model, scores.count)
    return gate.ranges, gate.judge(scores)
