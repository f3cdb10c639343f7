"""Scores from what a run left behind: its images, its log, its record, or the records of its shards."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.accuracy.records import RECORD, RecordWriter, read_record
from sdxl_engine.errors import AccuracyError, AssetError, LoadgenError, UsageError
from sdxl_engine.loadgen.accuracy_log import AccuracyLog
from sdxl_engine.run_captions import own_share, whole_run
from sdxl_engine.run_header import IMAGES, check_same_run, differences, run_facts, run_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sdxl_engine.accuracy.records import Record
    from sdxl_engine.accuracy.tally import Tally
    from sdxl_engine.assets.captions import Caption
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.results import Scores
    from sdxl_engine.settings import RunSettings


def score_images(
    settings: RunSettings, model: ModelSource, images: Path, tell: Callable[[str], None], output: Path | None = None
) -> Scores:
    """Score the images of an accuracy log or of a folder, streamed.

    Args:
        settings: Which captions the images are of; with `resume`, the scoring goes on with the record there.
        model: Of the settings.
        images: An `mlperf_log_accuracy.json` that holds images, or a folder of `<id>.png`.
        tell: Called with a line of text as the scoring goes on.
        output: A folder for a new record; None with `resume`, or to keep none.

    Raises:
        UnavailableError: the official metrics were asked for and are not here.
        AssetError: a metric network, an image or the record is damaged or not the right one.
        UsageError: the record is of another run.
        AccuracyError: see `Collector`.
    """
    from sdxl_engine.accuracy.collector import Collector
    from sdxl_engine.accuracy.placement import open_scorer
    from sdxl_engine.images import from_folder, from_log
    from sdxl_engine.models.spec import read_spec
    from sdxl_engine.shards import BLOCK

    wanted = {caption.id: caption.text for caption in own_share(settings, model)}
    with open_scorer(model, settings.metrics, settings.metrics_device) as scorer:
        header = run_header(run_facts(settings, model, engine=IMAGES), scorer.metric, BLOCK)
        earlier, writer = open_record(header, output, Path(settings.resume) if settings.resume else None)
        collector = Collector(scorer, wanted, writer=writer, record=earlier)
        done = frozenset(earlier.digests) if earlier is not None else frozenset()
        batch = (list(wanted), read_spec(model.checkpoint).image_side, BLOCK, done)
        batches = from_folder(images, *batch) if images.is_dir() else from_log(AccuracyLog(images), *batch)
        for some, pictures in batches:
            collector.take(some, pictures)
            tell(f"scoring: {len(collector.tally)}/{len(wanted)} images")
        collector.finish()
    return collector.scores()


def open_record(
    header: dict[str, Any], output: Path | None, resume: Path | None
) -> tuple[Record | None, RecordWriter | None]:
    """What an earlier part of the run has scored, and the writer that goes on from there.

    Args:
        header: Of this run.
        output: A folder for a new record.
        resume: A folder with the record to go on with.

    Raises:
        UsageError: the record to go on with is of another run.
        AssetError: it is missing or damaged, or there is one already where a new one would go.
    """
    if resume is not None:
        record = read_record(resume / RECORD)
        check_same_run(record, header, resume / RECORD)
        return record, RecordWriter(resume / RECORD, record=record)
    return None, begin_record(header, output) if output is not None else None


def begin_record(header: dict[str, Any], output: Path) -> RecordWriter:
    """The writer of a new record in the folder `output`.

    Raises:
        AssetError: there is a record already.
    """
    if (output / RECORD).exists():
        raise AssetError("there is a record already", source=output / RECORD, fix="name a new folder, or resume")
    output.mkdir(parents=True, exist_ok=True)
    return RecordWriter(output / RECORD, header)


def scores_of(record: Record, model: ModelSource, captions: Iterable[Caption]) -> Scores:
    """The scores that follow from a record.

    Raises:
        AccuracyError: an image is missing, foreign or doubled.
    """
    from sdxl_engine.accuracy.tally import Tally

    tally = Tally(caption.id for caption in captions)
    for block in record.blocks:
        tally.add(block)
    return _scores(tally, model, record)


def check_log(log: Path, record: Record, captions: Sequence[Caption]) -> str:
    """Check that LoadGen logged, for each sample, the image that was scored or its digest.

    Returns:
        The hex SHA-256 of the log.

    Raises:
        AssetError: the log is corrupt or lacks a sample.
        LoadgenError: a response is not the scored image's.
    """
    digests, responses = record.digests, AccuracyLog(log, len(captions))
    for row, response, sha256 in responses.entries():
        wanted = digests.get(captions[row].id)
        found = response.hex() if len(response) == 32 else sha256
        if found != wanted:
            raise LoadgenError(
                "LoadGen logged another image than the one that was scored",
                got=f"SHA-256 {found} for caption {captions[row].id}",
                expected=wanted or "a scored image",
                source=log,
            )
    return responses.file_sha256


def merge(paths: Sequence[Path], settings: RunSettings, model: ModelSource, output: Path | None = None) -> Scores:
    """The scores of one run from the records of its shards.

    Args:
        paths: The shards' records, or folders with one in it.
        settings: Which variant, deep steps and captions the run was about.
        model: What was scored.
        output: A folder for the record of the whole run.

    Raises:
        UsageError: the records are of different runs or metrics, or of another variant or other deep steps, captions
            or latent than the settings'.
        AccuracyError: an image is missing, foreign or doubled.
        AssetError: a record is missing or damaged.
    """
    from sdxl_engine.accuracy.tally import Tally

    records = [(path, read_record(path / RECORD if path.is_dir() else path)) for path in paths]
    first = records[0][1].header
    captions = whole_run(settings, model)
    # What decides how the scores are judged; engine and precision do not, and the records say them.
    ours = run_facts(settings, model, engine=IMAGES)
    found = [
        f"{name}: {first['run'].get(name)}, now {ours[name]}"
        for name in ("model", "model_opt", "deep_steps", "captions", "captions_sha256", "latent_sha256")
        if first["run"].get(name) != ours[name]
    ]
    if found:
        fix = "name the model, the variant, the deep steps, the captions, their count and the latent that the run had"
        raise UsageError("the records are of another run than this", got="; ".join(found), source=paths[0], fix=fix)
    tally = Tally(caption.id for caption in captions)
    for path, record in records:
        parts = [
            (_but_shard(first["run"]), _but_shard(record.header["run"])),
            (first["metric"], record.header["metric"]),
        ]
        found = [line for one, other in parts for line in differences(one, other)]
        if found:
            raise UsageError(
                "the records are not shards of one run",
                got="; ".join(found),
                expected=f"the run and metric of {paths[0]}",
                source=path,
            )
        try:
            for block in record.blocks:
                tally.add(block)
        except AccuracyError as error:
            raise AccuracyError(
                error.what, got=error.parts["got"], expected="shards that share no id", source=path
            ) from None
    scores = _scores(tally, model, records[0][1])
    if output is not None:
        header = first | {"run": _but_shard(first["run"]) | {"shard": None}}
        with contextlib.closing(begin_record(header, output)) as writer:
            for _, record in records:
                for block in record.blocks:
                    writer.append(block)
    return scores


def _but_shard(run: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in run.items() if name != "shard"}


def _scores(tally: Tally, model: ModelSource, record: Record) -> Scores:
    """Scores of a whole tally under the metric that the record names."""
    from sdxl_engine.accuracy.variants import statistics_of

    identity = dict(record.header["metric"])
    statistics = statistics_of(model, record.blocks[0].features.shape[1] if record.blocks else 0, identity)
    return tally.scores(statistics, identity["variant"], identity)
