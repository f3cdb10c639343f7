import dataclasses
from pathlib import Path

import pytest

from sdxl_engine.assets.captions import write_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import DOWNLOADED, resolve_model


def test_auto_takes_the_downloaded_checkpoint_where_it_is(tmp_path):
    assert resolve_model("auto", tmp_path).name == "shapes"
    index = tmp_path / DOWNLOADED / "model_index.json"
    index.parent.mkdir(parents=True)
    index.write_text("{}")
    found = resolve_model("auto", tmp_path)
    assert found.checkpoint == index.parent
    assert (found.metric_variant, found.ranges) == ("mlperf", ())


def test_the_ranges_of_shapes_hold_for_its_own_captions_only(tmp_path):
    own = resolve_model("shapes", tmp_path)
    assert [ranges.count for ranges in own.ranges] == [128, 512]
    write_captions(tmp_path / "few.tsv", ["a small red circle", "a large blue ring"], 128)
    other = resolve_model("shapes", tmp_path, tmp_path / "few.tsv")
    assert other.ranges == ()
    assert (other.accuracy_samples, other.performance_samples) == (2, 2)


@pytest.mark.parametrize(("model", "got"), [("shape", "no such folder"), (".", "no model_index.json")])
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, model, got):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="unknown model") as caught:
        resolve_model(model, Path("build"), source="--sdxl-model")
    assert got in str(caught.value)
    assert "--sdxl-model" in str(caught.value)


def test_the_pruned_variant_has_ranges_of_its_own(tmp_path):
    own = resolve_model("shapes", tmp_path)
    pruned = dataclasses.replace(own, pruned_ranges=own.ranges[:1])
    assert pruned.ranges_of("DeepCachePruned") == own.ranges[:1]
    assert pruned.ranges_of("DeepCache") == pruned.ranges_of("NoOpt") == own.ranges
