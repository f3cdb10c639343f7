"""Reports in the formats of MLPerf's tools, read back as these tools read them."""

import json
import math
import re

import pytest

from sdxl_engine.accuracy.official_report import accuracy_txt, performance_line, summary_lines, write_reports
from sdxl_engine.errors import AccuracyError

CLIP, FID = 31.713050620123456, 23.604639465987654
DIGEST = "0123456789abcdef" * 4
# As the submission checker has them, applied to each line with re.match.
CHECKER = {
    "CLIP_SCORE": r".*'CLIP_SCORE':\s+'?([\d.]+).*",
    "FID_SCORE": r".*'FID_SCORE':\s+'?([\d.]+).*",
    "hash": r"^hash=([\w\d]+)$",
}
BAD = [math.nan, math.inf, -math.inf, -1e-12, -31.7]


def test_accuracy_txt_to_the_letter():
    assert accuracy_txt(CLIP, FID, DIGEST) == (
        f"Accuracy Results: {{'FID_SCORE': '23.604639466', 'CLIP_SCORE': '31.713050620'}}\nhash={DIGEST}\n"
    )


@pytest.mark.parametrize(("clip", "fid"), [(CLIP, FID), (0.0, 1234567.25), (1e-12, 1e22), (-0.0, 100)])
def test_the_checker_finds_both_scores_and_the_digest(clip, fid):
    found = {name: [] for name in CHECKER}
    for line in accuracy_txt(clip, fid, DIGEST).splitlines(keepends=True):
        for name, pattern in CHECKER.items():
            if match := re.match(pattern, line):
                found[name].append(match[1])
    assert [float(score) for score in found["CLIP_SCORE"]] == [pytest.approx(clip, abs=5e-10)]
    assert [float(score) for score in found["FID_SCORE"]] == [pytest.approx(fid, abs=5e-10)]
    assert found["hash"] == [DIGEST]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["clip", "fid"])
def test_a_score_that_is_no_number_is_refused_and_nothing_is_written(tmp_path, name, bad):
    scores = {"clip": CLIP, "fid": FID} | {name: bad}
    with pytest.raises(AccuracyError, match="cannot be reported") as caught:
        write_reports(tmp_path, **scores, log_sha256=DIGEST)
    assert caught.value.parts["got"] == f"{name.upper()}_SCORE {bad}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST.upper(), f"{DIGEST}\n", "of another kind"])
def test_only_a_digest_is_a_digest(digest):
    with pytest.raises(ValueError, match="not a hex SHA-256"):
        accuracy_txt(CLIP, FID, digest)


def test_both_reports(tmp_path):
    write_reports(tmp_path, CLIP, FID, DIGEST)
    assert (tmp_path / "accuracy.txt").read_text() == accuracy_txt(CLIP, FID, DIGEST)
    text = (tmp_path / "coco-results.json").read_text()
    assert text == f'{{\n    "CLIP_SCORE": {CLIP!r},\n    "FID_SCORE": {FID!r}\n}}'
    assert json.loads(text) == {"CLIP_SCORE": CLIP, "FID_SCORE": FID}
    assert len(list(tmp_path.iterdir())) == 2


def test_no_accuracy_txt_without_the_other_report(tmp_path):
    (tmp_path / "coco-results.json").mkdir()
    with pytest.raises(OSError, match="coco-results"):
        write_reports(tmp_path, CLIP, FID, DIGEST)
    assert [path.name for path in tmp_path.iterdir()] == ["coco-results.json"]


@pytest.mark.parametrize(
    ("speed", "valid", "says"),
    [(2.85, True, "2.85, Result is VALID"), (4.0353312, False, "4.03533, Result is INVALID"), (None, False, "-, ")],
)
def test_performance_line(speed, valid, says):
    assert performance_line(speed, valid=valid).startswith(f"performance: result_samples_per_second: {says}")


def test_summary_to_the_letter():
    lines = ["accuracy: [PASSED] CLIP_SCORE: 31.713", "performance: result_samples_per_second: 2.85, Result is VALID"]
    assert summary_lines("H100x1_TRT_DEEP_CACHE-Offline", lines).split("\n") == [
        " ",
        "======================== Result summaries: ========================",
        "",
        " H100x1_TRT_DEEP_CACHE-Offline:",
        "   stable-diffusion-xl:",
        "     accuracy: [PASSED] CLIP_SCORE: 31.713",
        "     performance: result_samples_per_second: 2.85, Result is VALID",
        " ",
        "",
    ]
