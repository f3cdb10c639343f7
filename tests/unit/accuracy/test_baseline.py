import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from scored_runs import HEADER, write_run

from sdxl_engine.accuracy.baseline import scored_run, stored_baseline, write_baseline
from sdxl_engine.accuracy.networks import load_shapes_metrics
from sdxl_engine.assets.captions import first_captions
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import read_json
from sdxl_engine.models.source import resolve_model
from sdxl_engine.shapes import bundle

NETWORKS = SimpleNamespace(variant="shapes", identity={"clip_resize": "8"})


@pytest.fixture(scope="module")
def model():
    return resolve_model("shapes", Path("build"))


@pytest.fixture(scope="module")
def own(model):
    return {row.id: row.text for row in first_captions(model.captions, 128)}


def test_a_run_is_named_by_its_folder_or_its_record(tmp_path):
    folder = write_run(tmp_path / "run", {3: 98.5, 1: 97.25})
    for path in (folder, folder / "sdxl_scores.jsonl"):
        run = scored_run(path)
        assert (run.name, run.folder, run.header) == (str(path), folder, HEADER)
        assert run.clip == {3: 98.5, 1: 97.25}
        assert run.digests.keys() == {3, 1}
    with pytest.raises(AssetError, match="no record"):
        scored_run(tmp_path)


@pytest.mark.parametrize("count", [128, 512])
def test_the_shipped_baseline_is_that_of_the_reference_that_the_ranges_come_from(model, own, count):
    baseline = stored_baseline(model, own)
    measured = read_json(bundle.BUNDLE / bundle.RANGES, "the ranges")["measured"][str(count)]["reference"]["clip"]
    scores = [baseline.clip[key] for key in range(count)]
    assert sum(scores) / count == pytest.approx(measured, abs=5e-5)
    assert len(baseline.clip) == 512
    assert baseline.digests == {}


def test_the_shipped_baseline_was_scored_by_the_shipped_networks(model, own):
    networks = load_shapes_metrics(model.metrics)
    assert stored_baseline(model, own).header == {"metric": networks.identity | {"variant": "shapes"}}


def test_other_captions_or_another_model_have_no_stored_baseline(model, own):
    for source, captions in ((dataclasses.replace(model, name="sdxl"), own), (model, own | {5: "a cat"})):
        with pytest.raises(UsageError, match="no baseline") as caught:
            stored_baseline(source, captions)
        assert "--sdxl-baseline" in caught.value.parts["fix"]


def test_what_is_written_is_read_back_rounded(tmp_path, model, own):
    for name in (bundle.CAPTIONS, bundle.BASELINE):
        shutil.copy(bundle.BUNDLE / name, tmp_path)
    write_baseline(tmp_path / bundle.BASELINE, "a test", NETWORKS, {0: 1 / 3, 1: 99.0})
    found = stored_baseline(dataclasses.replace(model, checkpoint=tmp_path), own)
    assert (found.name, found.clip) == ("a test", {0: 0.3333, 1: 99.0})
    assert found.header == {"metric": {"variant": "shapes", "clip_resize": "8"}}
    (tmp_path / bundle.BASELINE).write_text(json.dumps({"clip": [1]}))
    with pytest.raises(AssetError, match="malformed"):
        stored_baseline(dataclasses.replace(model, checkpoint=tmp_path), own)


def test_ids_with_a_gap_cannot_be_stored(tmp_path):
    with pytest.raises(ValueError, match="0, 1, 2"):
        write_baseline(tmp_path / "b.json", "a test", NETWORKS, {0: 1.0, 2: 1.0})
