import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from scored_runs import METRIC, picture, write_run

from sdxl_engine.assets.captions import captions_sha256, first_captions
from sdxl_engine.cli import main
from sdxl_engine.shapes.bundle import BUNDLE, CAPTIONS

COUNT = 40
ROWS = first_captions(BUNDLE / CAPTIONS, COUNT)
GOOD = {row.id: 99 + row.id / 100 for row in ROWS}
PICTURES = {key: picture(100 + key, side=128) for key in GOOD}
HEADER = {"run": {"captions": COUNT, "captions_sha256": captions_sha256(ROWS)}, "metric": METRIC}


@pytest.fixture
def folders(tmp_path):
    """Of a run with one image black, and of a good one."""
    run = write_run(tmp_path / "run", GOOD | {3: 1.0}, PICTURES | {3: picture(0, side=128)}, HEADER)
    return run, write_run(tmp_path / "baseline", GOOD, PICTURES, HEADER)


def compare(*arguments):
    return main(["compare", *map(str, arguments)])


def test_the_report_is_printed_the_picture_and_the_pairs_are_written(folders, tmp_path, capsys):
    run, baseline = folders
    pairs, out = tmp_path / "pairs.json", tmp_path / "out"
    assert compare("--run", run, "--baseline", baseline, "--output", out, "--json", pairs) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("diagnosis: loss of CLIP in a few: 1 of 40 prompts carries 100 % of the loss\n")
    assert ROWS[3].text[:40] in shown
    assert "LPIPS: not computed: no " in shown
    with Image.open(out / "sdxl_diagnosis.png") as sheet:
        assert sheet.format == "PNG"
    value = json.loads(pairs.read_text())
    assert (value["summary"]["identical"], value["summary"]["loss"]["prompts"]) == (39, 1)
    assert len(value["pairs"]) == COUNT
    assert value["pairs"][0]["psnr"] == {"run to baseline": "inf"}
    assert value["pairs"][3]["caption"] == ROWS[3].text


def test_the_picture_goes_to_the_runs_folder_unless_told_otherwise(folders, capsys):
    run, baseline = folders
    assert compare("--run", run / "sdxl_scores.jsonl", "--baseline", baseline) == 0
    assert f"picture: {run}/sdxl_diagnosis.png (run beside the baseline's)" in capsys.readouterr().out
    assert (run / "sdxl_diagnosis.png").is_file()


def test_a_third_run_gives_psnr_a_direction(folders, tmp_path, capsys):
    run, baseline = folders
    reference = shutil.copytree(baseline, tmp_path / "reference")
    assert compare("--run", run, "--baseline", baseline, "--reference", reference) == 0
    assert "nearer in 0, further in 1, sign test p = 1" in capsys.readouterr().out


def test_what_does_not_compare_ends_with_status_1_and_a_wrong_captions_file_with_4(folders, tmp_path, capsys):
    run, _ = folders
    other = write_run(tmp_path / "other", GOOD, header=HEADER | {"metric": METRIC | {"variant": "mlperf"}})
    assert compare("--run", run, "--baseline", other) == 1
    assert "the scores do not compare: variant of the metric differs" in capsys.readouterr().err
    assert compare("--run", run, "--baseline", tmp_path) == 1
    assert "there is no record of a scored run" in capsys.readouterr().err
    captions = tmp_path / "captions.tsv"
    captions.write_text(Path(BUNDLE / CAPTIONS).read_text().replace("red", "blue"))
    assert compare("--run", run, "--baseline", run, "--captions", captions) == 4
    assert "the run is of other captions" in capsys.readouterr().err
