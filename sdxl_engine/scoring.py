"""Scores from what a run left behind: its images, its log, its record, or the records of its shards."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.records import RECORD, RecordWriter, read_record
from sdxl_engine.errors import AccuracyError, AssetError, LoadgenError, UsageError
from sdxl_engine.loadgen.logs import accuracy_entries
from sdxl_engine.run_captions import whole_run
from sdxl_engine.run_header import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sdxl_engine.accuracy.records import Record
    from sdxl_engine.accuracy.tally import Tally
    from sdxl_engine.assets.captions import Caption
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.results import Scores
    from sdxl_engine.settings import RunSettings


def score_images(model: ModelSource, captions: Sequence[Caption], images: Path, tell: Callable[[str], None]) -> Scores:
    """Score the images of an accuracy log or of a folder, streamed.

    Args:
        model: Whose metrics to use.
        captions: Of the run; each needs its image.
        images: An `mlperf_log_accuracy.json` that holds images, or a folder of `<id>.png`.
        tell: Called with a line of text as the scoring goes on.

    Raises:
        UnavailableError: the official metrics were asked for and are not here.
        AssetError: a metric network or an image is damaged or not the right one.
        AccuracyError: see `Collector`.
    """
    from sdxl_engine.accuracy.collector import Collector
    from sdxl_engine.accuracy.scorer import Scorer
    from sdxl_engine.accuracy.variants import load_metrics
    from sdxl_engine.images import from_folder, from_log
    from sdxl_engine.models.spec import read_spec
    from sdxl_engine.shards import BLOCK

    wanted = {caption.id: caption.text for caption in captions}
    collector = Collector(Scorer(load_metrics(model)), wanted)
    side = read_spec(model.checkpoint).image_side
    batches = from_folder if images.is_dir() else from_log
    for some, pictures in batches(images, list(wanted), side, BLOCK):
        collector.take(some, pictures)
        tell(f"scoring: {len(collector.tally)}/{len(wanted)} images")
    collector.finish()
    return collector.scores()


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


def check_log(log: Path, record: Record, captions: Sequence[Caption]) -> None:
    """Check that LoadGen logged, for each sample, the image that was scored or its digest.

    Raises:
        AssetError: the log is corrupt or lacks a sample.
        LoadgenError: a response is not the scored image's.
    """
    import hashlib

    digests = record.digests
    for row, response in accuracy_entries(log, len(captions)):
        wanted = digests.get(captions[row].id)
        found = response.hex() if len(response) == 32 else hashlib.sha256(response).hexdigest()
        if found != wanted:
            raise LoadgenError(
                "LoadGen logged another image than the one that was scored",
                got=f"SHA-256 {found} for caption {captions[row].id}",
                expected=wanted or "a scored image",
                source=log,
            )


def merge(paths: Sequence[Path], settings: RunSettings, model: ModelSource, output: Path | None = None) -> Scores:
    """The scores of one run from the records of its shards.

    Args:
        paths: The shards' records, or folders with one in it.
        settings: Which captions the run was about.
        model: What was scored.
        output: A folder for the record of the whole run.

    Raises:
        UsageError: the records are of different runs or metrics, or of other captions than the settings'.
        AccuracyError: an image is missing, foreign or doubled.
        AssetError: a record is missing or damaged.
    """
    from sdxl_engine.accuracy.tally import Tally
    from sdxl_engine.assets.captions import captions_sha256

    records = [(path, read_record(path / RECORD if path.is_dir() else path)) for path in paths]
    first = records[0][1].header
    captions = whole_run(settings, model)
    ours = {"model": model.name, "captions": len(captions), "captions_sha256": captions_sha256(captions)}
    found = [
        f"{name}: {first['run'][name]}, now {value}" for name, value in ours.items() if first["run"][name] != value
    ]
    if found:
        fix = "name the model, the captions and the count of samples that the run had"
        raise UsageError("the records are of other captions", got="; ".join(found), source=paths[0], fix=fix)
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
        output.mkdir(parents=True, exist_ok=True)
        if (output / RECORD).exists():
            raise AssetError("there is a record already", source=output / RECORD, fix="name a new folder")
        header = first | {"run": _but_shard(first["run"]) | {"shard": None}}
        with contextlib.closing(RecordWriter(output / RECORD, header)) as writer:
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
    statistics = statistics_of(model, record.blocks[0].features.shape[1] if record.blocks else 0)
    return tally.scores(statistics, identity.pop("variant"), identity)
