"""Records of shards and the settings that they are merged with."""

import contextlib

import numpy as np
import pytest

from sdxl_engine.accuracy.records import Block
from sdxl_engine.errors import AccuracyError, AssetError, UsageError
from sdxl_engine.files import sha256
from sdxl_engine.models.source import model_of
from sdxl_engine.run_header import run_facts
from sdxl_engine.scoring import begin_record, merge
from sdxl_engine.settings import RunSettings


@pytest.fixture
def settings(tmp_path):
    return RunSettings(model="shapes", model_opt="DeepCache", engine="torch", build_dir=tmp_path)


@pytest.fixture
def record(tmp_path):
    """Makes the record of one image; what it says of the run or of the statistics can be changed."""

    def make(settings, statistics_sha256=None, **changes):
        model = model_of(settings)
        metric = {
            "variant": "shapes",
            "statistics_sha256": statistics_sha256 or sha256(model.metrics / "statistics.npz"),
        }
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        header = {"run": run_facts(settings, model) | changes, "metric": metric}
        with contextlib.closing(begin_record(header, folder)) as writer:
            writer.append(Block((0,), ("0",), np.ones(1), np.ones((1, 64), np.float32)))
        return folder

    return make


def fits(folder, settings):
    """Whether the record is one of this run: then 511 images are missing."""
    with pytest.raises(AccuracyError, match="not complete"):
        merge([folder], settings, model_of(settings))
    return True


def test_a_run_with_steps_of_its_own_is_merged_as_nothing_else(settings, record):
    """Its scores would be judged as the variant's."""
    other = RunSettings(**settings.to_json() | {"shallow_steps": 2, "build_dir": settings.build_dir})
    for right, wrong in ((settings, other), (other, settings)):
        folder = record(right)
        with pytest.raises(UsageError, match="of another run than this") as caught:
            merge([folder], wrong, model_of(wrong))
        assert "deep_steps: " in caught.value.parts["got"]
        assert "0,3,6,9,12,15,18" in caught.value.parts["got"]
        assert fits(folder, right)


@pytest.mark.parametrize("changes", [{"model_opt": "NoOpt"}, {"latent_sha256": "0" * 64}])
def test_shards_that_would_be_judged_as_what_they_are_not_are_refused(settings, record, changes):
    with pytest.raises(UsageError, match="of another run than this") as caught:
        merge([record(settings, **changes)], settings, model_of(settings))
    (name, value), *_ = changes.items()
    assert caught.value.parts["got"].startswith(f"{name}: {value}, now ")


@pytest.mark.parametrize("changes", [{"engine": "theirs"}, {"precision": "fp8"}])
def test_what_drew_the_images_need_not_be_here(settings, record, changes):
    assert fits(record(settings, **changes), settings)


def test_statistics_are_those_that_the_record_names(settings, record):
    with pytest.raises(AssetError, match="other statistics") as caught:
        merge([record(settings, "0" * 64)], settings, model_of(settings))
    assert caught.value.parts["expected"] == f"{'0' * 64}, as in the record"
