"""Shards drawn by separate runs merge to the scores of one run, and nothing else does."""

import shutil
from pathlib import Path

import pytest

from sdxl_engine.accuracy.records import RECORD, RecordWriter, read_record
from sdxl_engine.cli import main
from sdxl_engine.errors import AccuracyError, AssetError, UsageError
from sdxl_engine.measure import measure
from sdxl_engine.models.source import resolve_model
from sdxl_engine.scoring import merge, score_images
from sdxl_engine.settings import RunSettings

SAMPLES = 200
MODEL = resolve_model("shapes", Path("build"))


def settings(build_dir, shard=None, **changes):
    pipeline = "tests.support.quick_pipelines:renders"
    return RunSettings(model="shapes", samples=SAMPLES, build_dir=build_dir, pipeline=pipeline, shard=shard, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The whole run, and each of three shards."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        yield {
            shard: measure(settings(folder, shard, save_images="none" if shard else "all"), "AccuracyOnly")
            for shard in (None, "1/3", "2/3", "3/3")
        }


def folders(runs, *shards):
    return [runs[shard].loadgen.log_dir for shard in shards]


def test_shards_merge_to_the_bits_of_one_run(runs, tmp_path):
    one = runs[None].scores
    merged = merge(folders(runs, "3/3", "1/3", "2/3"), settings(tmp_path), MODEL, tmp_path / "merged")
    assert (merged.clip.hex(), merged.fid.hex()) == (one.clip.hex(), one.fid.hex())
    assert merged == one
    again = merge([tmp_path / "merged"], settings(tmp_path), MODEL)
    assert again == one


def test_a_shard_is_scored_but_not_judged(runs):
    verdict = runs["1/3"].verdict
    assert verdict.passed is None
    assert "sdxl-engine score merge" in verdict.reason
    assert [runs[shard].scores.count for shard in ("1/3", "2/3", "3/3")] == [64, 64, 72]
    # The formats of MLPerf's tools, which do not say that they are of a part.
    assert [(runs[shard].loadgen.log_dir / "accuracy.txt").exists() for shard in (None, "1/3")] == [True, False]


def test_the_saved_images_score_the_same(runs):
    one = runs[None]
    images = one.loadgen.log_dir / "images"
    scores = score_images(settings(Path("build")), MODEL, images, lambda _line: None)
    assert (scores.clip.hex(), scores.fid.hex()) == (one.scores.clip.hex(), one.scores.fid.hex())


def test_a_scoring_of_images_that_was_cut_off_goes_on(runs, tmp_path):
    images, one = runs[None].loadgen.log_dir / "images", runs[None].scores
    run = settings(Path("build"))
    assert score_images(run, MODEL, images, lambda _line: None, tmp_path / "record") == one
    path = tmp_path / "record" / RECORD
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    run = settings(Path("build"), resume=str(path.parent))
    assert score_images(run, MODEL, images, lambda _line: None) == one
    assert path.read_bytes() == whole
    with pytest.raises(AssetError, match="record already"):
        score_images(settings(Path("build")), MODEL, images, lambda _line: None, tmp_path / "record")


@pytest.mark.parametrize(
    ("shards", "words", "got"),
    [
        (("1/3", "3/3"), "not complete", "no image for 64 of 200 ids"),
        (("1/3", "2/3", "2/3", "3/3"), "second image", "64, 65"),
    ],
)
def test_a_missing_or_doubled_shard_is_refused(runs, tmp_path, shards, words, got):
    with pytest.raises(AccuracyError, match=words) as caught:
        merge(folders(runs, *shards), settings(tmp_path), MODEL)
    assert got in caught.value.parts["got"]


@pytest.mark.parametrize(("part", "name"), [("run", "model_opt"), ("run", "engine"), ("metric", "fid_weights_sha256")])
def test_shards_of_two_runs_are_refused(runs, tmp_path, part, name):
    record = read_record(runs["2/3"].loadgen.log_dir / RECORD)
    writer = RecordWriter(tmp_path / RECORD, record.header | {part: record.header[part] | {name: "other"}})
    for block in record.blocks:
        writer.append(block)
    writer.close()
    with pytest.raises(UsageError, match="not shards of one run") as caught:
        merge([*folders(runs, "1/3"), tmp_path, *folders(runs, "3/3")], settings(tmp_path), MODEL)
    assert name in caught.value.parts["got"]


def test_the_torchmetrics_variant_scores_otherwise_and_is_not_judged(runs):
    one = runs[None]
    images = one.loadgen.log_dir / "images"
    scores = score_images(settings(Path("build"), metrics="torchmetrics"), MODEL, images, lambda _line: None)
    assert scores.variant == "torchmetrics"
    assert abs(scores.fid - one.scores.fid) > 0.001
    assert scores.clip == pytest.approx(one.scores.clip, abs=0.5)


def test_the_command_merges_and_judges(runs, tmp_path, capsys):
    copies = [
        shutil.copytree(folder, tmp_path / folder.parents[3].name) for folder in folders(runs, "1/3", "2/3", "3/3")
    ]
    shared = ["score", "--model", "shapes", "--samples", str(SAMPLES)]
    arguments = [*shared, "--model-opt", "NoOpt", "merge", *map(str, copies)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"CLIP_SCORE: {runs[None].scores.clip:.3f}" in printed
    assert "200" in printed


def test_records_of_other_captions_are_refused(runs, tmp_path):
    with pytest.raises(UsageError, match="captions: 200, now 128"):
        merge(folders(runs, "1/3"), RunSettings(model="shapes", samples=128, build_dir=tmp_path), MODEL)
