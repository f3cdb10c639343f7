"""One benchmark run, whole: check, run LoadGen in its child process, score the logged images, judge the scores.

The plugin and the command line both call this module and nothing below it. Importing it is cheap.
"""

from __future__ import annotations

import importlib.util
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdxl_engine.accuracy.official_files import require_files
from sdxl_engine.accuracy.ranges import OFFICIAL, judge
from sdxl_engine.assets.captions import Caption, first_captions
from sdxl_engine.engines.registry import resolve_engine
from sdxl_engine.environment import environment
from sdxl_engine.errors import UnavailableError
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.heartbeat import RUNNING
from sdxl_engine.loadgen.runner import run_loadgen
from sdxl_engine.loadgen.spec import LoadgenSpec
from sdxl_engine.models.source import ModelSource, resolve_model
from sdxl_engine.results import AccuracyRanges, Measurement, Scores, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.loadgen.heartbeat import Progress
    from sdxl_engine.pipeline import Pipeline
    from sdxl_engine.settings import RunSettings

Mode = Literal["AccuracyOnly", "PerformanceOnly"]
_SCORER_NEEDS = ("torch", "open_clip", "torchvision", "pytorch_fid", "safetensors", "PIL")
SCORER_BATCH = 32


def check(settings: RunSettings) -> None:
    """Find out, without running anything, whether these settings can work here.

    Raises:
        UsageError: a value is wrong; UnavailableError: something is not installed.
        AssetError: the captions file is malformed.
    """
    settings.check()
    model = resolve_model(settings.model, settings.build_dir, settings.captions)
    if settings.pipeline is None:
        model.check_variant(settings.model_opt)
        resolve_engine(settings.engine)
    first_captions(model.captions, settings.samples or 1)
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
    model = resolve_model(settings.model, settings.build_dir, settings.captions)
    return {
        "model": model.name,
        "engine": "own pipeline" if settings.pipeline else resolve_engine(settings.engine).name,
        "accuracy samples": str(_samples(settings, model, "AccuracyOnly")),
        "performance samples": str(_samples(settings, model, "PerformanceOnly")),
    }


def captions(settings: RunSettings) -> list[Caption]:
    """The captions of an accuracy run, in the order of their file."""
    model = resolve_model(settings.model, settings.build_dir, settings.captions)
    return first_captions(model.captions, _samples(settings, model, "AccuracyOnly"))


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
        SdxlError: see `check`, `run_loadgen` and `Scorer`.
    """
    tell = progress or (lambda _line: None)
    model = resolve_model(settings.model, settings.build_dir, settings.captions)
    samples = _samples(settings, model, mode)
    if mode == "AccuracyOnly" and model.metric_variant == OFFICIAL.variant:
        # Before the run and not after it: the images take half an hour.
        require_files(model.metrics)
    result = run_loadgen(_spec(settings, model, mode, samples), _narrator(tell))
    scores, ranges, verdict = None, None, None
    if mode == "AccuracyOnly":
        scores = score_images(model, samples, result.log_dir / ACCURACY_LOG, tell)
        ranges, verdict = judged(model, scores)
    return Measurement(
        model=model.name,
        model_opt=settings.model_opt,
        engine=settings.pipeline or resolve_engine(settings.engine).name,
        precision=settings.precision,
        loadgen=result,
        scores=scores,
        ranges=ranges,
        verdict=verdict,
        environment=environment(),
    )


def _samples(settings: RunSettings, model: ModelSource, mode: Mode) -> int:
    default = model.accuracy_samples if mode == "AccuracyOnly" else model.performance_samples
    return settings.samples if settings.samples is not None else default


def _spec(settings: RunSettings, model: ModelSource, mode: Mode, samples: int) -> LoadgenSpec:
    moment = datetime.now(UTC).strftime("%Y.%m.%d-%H.%M.%S.%f")[:-3]
    log_dir = settings.build_dir / "logs" / moment / "stable-diffusion-xl" / settings.scenario
    return LoadgenSpec(
        scenario=settings.scenario,
        mode=mode,
        sample_count=samples,
        min_query_count=samples,
        min_duration_ms=model.min_duration_ms,
        log_dir=log_dir / settings.model_opt / mode,
        stall_timeout_s=settings.timeout_s,
        factory="sdxl_engine.assemble:image_source",
        factory_options={"settings": settings.to_json()},
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


def score_images(model: ModelSource, samples: int, images: Path, tell: Callable[[str], None]) -> Scores:
    """Score the images of an accuracy log or of a folder, streamed.

    Args:
        model: Whose captions and metrics to use.
        samples: How many captions, from the first; each needs its image.
        images: An `mlperf_log_accuracy.json`, or a folder of `<id>.png`.
        tell: Called with a line of text as the scoring goes on.

    Raises:
        UnavailableError: the official metrics were asked for and are not here.
        AssetError: a metric network or an image is damaged or not the right one.
        AccuracyError: see `Scorer`.
    """
    from sdxl_engine.accuracy.networks import load_shapes_metrics
    from sdxl_engine.accuracy.official import load_official_metrics
    from sdxl_engine.accuracy.scorer import Scorer
    from sdxl_engine.images import from_folder, from_log
    from sdxl_engine.models.spec import read_spec

    wanted = {caption.id: caption.text for caption in first_captions(model.captions, samples)}
    load = load_official_metrics if model.metric_variant == OFFICIAL.variant else load_shapes_metrics
    scorer = Scorer(load(model.metrics), wanted, SCORER_BATCH)
    side = read_spec(model.checkpoint).image_side
    batch = (list(wanted), side, SCORER_BATCH)
    batches = from_folder(images, *batch) if images.is_dir() else from_log(AccuracyLog(images), *batch)
    for some, pictures in batches:
        scorer.add(some, pictures)
        tell(f"scoring: {len(scorer.per_id)}/{samples} images")
    return scorer.scores()


def judged(model: ModelSource, scores: Scores) -> tuple[AccuracyRanges | None, Verdict]:
    """The ranges that hold for this model and count of captions, and the verdict."""
    ranges = next((entry for entry in model.ranges if entry.count == scores.count), None)
    if ranges is None:
        counts = ", ".join(str(entry.count) for entry in model.ranges) or "no count: the captions are not its own"
        reason = f"{model.name} has ranges for {counts} captions, this run had {scores.count}"
        line = f"accuracy: CLIP_SCORE: {scores.clip:.3f} | FID_SCORE: {scores.fid:.3f}"
        return None, Verdict(None, line, reason)
    return ranges, judge(scores, ranges)
