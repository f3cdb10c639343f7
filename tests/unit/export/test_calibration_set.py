"""Which captions ranges are measured on, and that none of them is scored."""

import pytest

from sdxl_engine.assets.captions import write_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.export.calibration_set import OWN, calibration_set
from sdxl_engine.export.recipes import INT8
from sdxl_engine.settings import RunSettings
from sdxl_engine.shapes.bundle import BUNDLE, LATENT
from sdxl_engine.shapes.grammar import parse, split


@pytest.fixture
def settings(tmp_path):
    """Of a checkpoint's folder, with 40 captions."""
    write_captions(tmp_path / "captions.tsv", [f"caption {number}" for number in range(40)], 64)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    return RunSettings(
        model=str(tmp_path / "model"), build_dir=tmp_path / "build", captions=tmp_path / "captions.tsv", samples=8
    )


def test_of_shapes_they_show_no_scene_that_is_scored():
    drawn = calibration_set(RunSettings(model="shapes"), INT8)
    validation = {parse(text).canonical for text in split()[0]}
    assert len(drawn.captions) == INT8.captions
    assert not validation & {parse(text).canonical for text in drawn.captions}
    assert drawn.latent == BUNDLE / LATENT


def test_of_a_checkpoint_they_are_the_last_rows_if_the_run_does_not_score_them(settings, tmp_path):
    drawn = calibration_set(settings, INT8)
    assert drawn.captions == tuple(f"caption {number}" for number in range(8, 40))
    assert drawn.latent == tmp_path / "build" / "data" / "coco" / "SDXL" / "latents.npy"
    fewer = RunSettings.from_json(settings.to_json() | {"samples": 3})
    assert calibration_set(fewer, INT8) == drawn


@pytest.mark.parametrize(("samples", "fix"), [(9, "score at most 8"), (None, "score at most 8")])
def test_a_run_that_scores_them_is_refused(settings, samples, fix):
    more = RunSettings.from_json(settings.to_json() | {"samples": samples})
    with pytest.raises(UsageError, match="no calibration captions for int8") as caught:
        calibration_set(more, INT8)
    assert f"{samples or 40} of them scored" in str(caught.value)
    assert fix in str(caught.value)


def test_the_data_sets_own_calibration_captions_come_first(settings, tmp_path):
    own = tmp_path / "build" / "data" / "coco" / "SDXL" / OWN
    own.parent.mkdir(parents=True)
    write_captions(own, [f"train {number}" for number in range(33)], 64)
    whole = RunSettings.from_json(settings.to_json() | {"samples": None})
    assert calibration_set(whole, INT8).captions == tuple(f"train {number}" for number in range(32))
