"""The diagnosis of runs with a known fault, from their folders to the text, the pairs and the picture."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored_runs import HEADER, picture, write_accuracy_log, write_run

from sdxl_engine.accuracy import diagnosis
from sdxl_engine.accuracy.baseline import scored_run, stored_baseline
from sdxl_engine.accuracy.contact_sheet import GAP, LINE, SIDE
from sdxl_engine.accuracy.diagnosis import PICTURE, diagnose, explain
from sdxl_engine.assets.captions import first_captions
from sdxl_engine.models.source import resolve_model
from sdxl_engine.shapes.grammar import BACKGROUNDS, parse

COUNT = 40
CAPTIONS = {key: f"caption {key}" for key in range(COUNT)}
GOOD = {key: 99 + key / 100 for key in range(COUNT)}
NOISE = np.random.default_rng(3).normal(0, 0.01, COUNT)
PICTURES = {key: picture(100 + key) for key in range(COUNT)}


def told(tmp_path, clip, images=PICTURES, **options):
    """The diagnosis of a run against one with the scores GOOD and the images PICTURES."""
    run = write_run(tmp_path / "run", clip, images)
    baseline = write_run(tmp_path / "baseline", GOOD, PICTURES)
    return diagnose(scored_run(run), scored_run(baseline), CAPTIONS, tmp_path / "out", **options)


def sheet(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_one_in_ten_black(tmp_path):
    black = range(0, COUNT, 10)
    clip = {key: 1.0 + key if key in black else score for key, score in GOOD.items()}
    found = told(tmp_path, clip, PICTURES | {key: picture(0) for key in black})
    path = tmp_path / "out" / PICTURE
    assert found.text.splitlines() == [
        "diagnosis: loss of CLIP in a few: 4 of 40 prompts carry 100 % of the loss",
        f"  against {tmp_path}/baseline",
        "  CLIP 90.880, baseline 99.195, 40 pairs; delta mean -8.315, median +0.000, from -98.000 to +0.000",
        "  4 lost, 0 gained, 36 equal: sign test p = 0.12; the worst 5 % of the prompts carry 56 % of the loss",
        "  36 of 40 images are bit-identical",
        "  PSNR of the 4 kept images that differ from the baseline's: median 6.93 dB, worst 5.85 dB",
        "      id       run  baseline     delta  PSNR dB  caption",
        "       0     1.000    99.000   -98.000     8.13  caption 0",
        "      10    11.000    99.100   -88.100     7.30  caption 10",
        "      20    21.000    99.200   -78.200     6.55  caption 20",
        "      30    31.000    99.300   -68.300     5.85  caption 30",
        f"  picture: {path} (run beside the baseline's)",
    ]
    pixels = sheet(path)
    top = GAP + LINE + SIDE // 2
    assert (pixels[top, GAP + SIDE // 2] == 100).all(), "the baseline's image of caption 0 is on the left"
    assert (pixels[top, 2 * GAP + SIDE + SIDE // 2] == 0).all(), "the run's is on the right, black"


def test_all_but_a_little_of_the_loss_is_not_called_all_of_it(tmp_path):
    found = told(tmp_path, {key: 1.0 if key == 5 else score + NOISE[key] for key, score in GOOD.items()})
    assert found.text.startswith("diagnosis: loss of CLIP in a few: 1 of 40 prompts carries over 99 % of the loss\n")


def test_a_uniform_loss_is_broad_and_eight_prompts_are_shown(tmp_path):
    found = told(tmp_path, {key: score - 0.2 + NOISE[key] for key, score in GOOD.items()})
    assert found.text.startswith("diagnosis: broad loss of CLIP: 40 of 40 prompts lost (sign test p < 1e-6)\n")
    assert found.text.count("  caption ") == 8
    assert len(found.text.splitlines()) <= 16


def test_swapped_pairs_are_broad_and_named_by_their_images(tmp_path):
    images = {key: PICTURES[key ^ 1] for key in PICTURES}
    found = told(tmp_path, {key: 2.0 + NOISE[key] for key in GOOD}, images)
    assert "broad loss of CLIP: 40 of 40 prompts lost" in found.text
    assert "0 of 40 images are bit-identical, 40 are the baseline's of another caption" in found.text


def test_noise_is_no_loss(tmp_path):
    found = told(tmp_path, {key: score + NOISE[key] - 1e-3 for key, score in GOOD.items()})
    assert found.text.startswith("diagnosis: no loss of CLIP beyond noise (sign test p = ")


def test_a_gain_is_no_loss_and_has_neither_table_nor_picture(tmp_path):
    found = told(tmp_path, {key: score + 0.1 for key, score in GOOD.items()})
    assert found.text.startswith("diagnosis: no loss of CLIP: its mean did not fall (sign test p < 1e-6)")
    assert "caption" not in found.text
    assert found.picture is None
    assert not (tmp_path / "out").exists()


def test_images_without_a_score_are_counted_and_shown_first(tmp_path):
    found = told(tmp_path, GOOD | {7: math.nan, 8: 98.0, 99: 1.0}, PICTURES | {99: picture(1)})
    lines = found.text.splitlines()
    assert lines[0].endswith("; 1 more without a CLIP score (not a number)")
    assert lines[2] == "  captions only in the run: 1"
    table = next(row for row, line in enumerate(lines) if line.endswith("PSNR dB  caption"))
    assert lines[table + 1].split()[:2] == ["7", "nan"]
    assert lines[table + 2].split()[:2] == ["8", "98.000"]


def test_every_pair_is_in_the_json(tmp_path):
    found = told(tmp_path, GOOD | {3: 90.0}, PICTURES | {3: picture(0)})
    value = found.to_json(CAPTIONS)
    assert value["summary"]["loss"]["kind"] == "few"
    assert value["picture"] == tmp_path / "out" / PICTURE
    assert len(value["pairs"]) == COUNT
    assert value["pairs"][3] == {
        "id": 3,
        "caption": "caption 3",
        "clip": {"run": 90.0, "baseline": GOOD[3], "delta": 90.0 - GOOD[3]},
        "psnr": {"run to baseline": pytest.approx(20 * math.log10(255 / 103))},
    }


def test_images_are_taken_from_the_accuracy_log_where_they_were_not_saved(tmp_path):
    run = write_run(tmp_path / "run", GOOD | {3: 90.0}, PICTURES, save=False)
    write_accuracy_log(run, list(PICTURES.values()))
    baseline = write_run(tmp_path / "baseline", GOOD)
    found = diagnose(scored_run(run), scored_run(baseline), CAPTIONS, tmp_path)
    assert (sheet(found.picture)[GAP + LINE + SIDE // 2, 2 * GAP + SIDE + SIDE // 2] == 103).all()


def test_where_no_image_was_kept_the_text_says_so(tmp_path):
    run, baseline = write_run(tmp_path / "run", GOOD | {3: 90.0}), write_run(tmp_path / "baseline", GOOD)
    found = diagnose(scored_run(run), scored_run(baseline), CAPTIONS, tmp_path)
    assert found.picture is None
    assert found.text.endswith("picture: none, the run's images were not kept (--sdxl-save-images=worst keeps them)")


@pytest.fixture(scope="module")
def model():
    return resolve_model("shapes", Path("build"))


@pytest.fixture
def shapes(tmp_path, model):
    """Captions of `shapes`, and the folder of a run that lost the fifth of them."""
    captions = {row.id: row.text for row in first_captions(model.captions, COUNT)}
    baseline = stored_baseline(model, captions)
    images = {key: picture(7, side=128) for key in captions}
    clip = {key: 0.0 if key == 5 else baseline.clip[key] for key in captions}
    return captions, write_run(tmp_path / "run", clip, images, dict(baseline.header))


def test_the_stored_baseline_of_shapes_is_taken_where_none_is_named(tmp_path, model, shapes):
    captions, run = shapes
    text = explain(run, None, model, captions, tmp_path / "out")
    assert text.startswith("diagnosis: loss of CLIP in a few: 1 of 40 prompts carries 100 % of the loss\n")
    assert "against fp32 NoOpt reference, engine torch, first 512 validation captions\n" in text
    assert "captions only in the baseline: 472" in text
    assert captions[5][:40] in text
    assert "run beside the captions' true renders" in text
    corner = sheet(tmp_path / "out" / PICTURE)[GAP + LINE + 2, GAP + 2]
    assert tuple(corner) == BACKGROUNDS[parse(captions[5]).background]


def test_explain_turns_every_error_into_one_line(tmp_path, model, shapes, monkeypatch):
    captions, run = shapes
    assert explain(tmp_path / "none", None, model, captions, tmp_path).startswith(
        "no diagnosis: there is no record of a scored run; expected: sdxl_scores.jsonl"
    )
    other = write_run(tmp_path / "other", {5: 1.0}, header=HEADER)
    assert "no diagnosis: the scores do not compare" in explain(run, other, model, captions, tmp_path)
    foreign = dataclasses.replace(model, name="sdxl")
    assert "no diagnosis: there is no baseline" in explain(run, None, foreign, captions, tmp_path)
    (run / "images" / "5.png").write_text("x")
    assert "no diagnosis: a picture cannot be read" in explain(run, None, model, captions, tmp_path)

    def broken(*_args, **_options):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(diagnosis, "diagnose", broken)
    assert explain(run, None, model, captions, tmp_path) == "no diagnosis: ZeroDivisionError: two lines"
