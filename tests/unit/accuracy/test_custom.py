"""Ranges of the user's own, from two numbers or from a file."""

import json
import math

import pytest

from sdxl_engine.accuracy.custom import custom_ranges, parse_range
from sdxl_engine.accuracy.ranges import OFFICIAL, judge, ranges_to_dict
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.results import Range, Scores
from sdxl_engine.settings import RunSettings
from sdxl_engine.shapes.bundle import BUNDLE, RANGES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("31.5,31.9", Range(31.5, 31.9)),
        (" 31.5 , 31.9 ", Range(31.5, 31.9)),
        ("31.5,31.5", Range(31.5, 31.5)),
        ("31.5,", Range(31.5, math.inf)),
        (",24", Range(-math.inf, 24)),
        ("-1,1e1", Range(-1, 10)),
    ],
)
def test_two_limits(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "31.5", "32,31", "nan,32", "31,nan", "31,inf", "-inf,31", "1,2,3", "a,b", "31;32", "31.5,,"]
)
def test_what_is_not_two_limits_is_refused(text):
    with pytest.raises(UsageError, match="not two limits") as caught:
        parse_range(text, source="--sdxl-clip-range")
    assert caught.value.parts["got"] == repr(text)
    assert caught.value.parts["from"] == "--sdxl-clip-range"


def test_a_score_without_a_range_is_not_judged_but_must_be_a_number():
    ranges = custom_ranges(RunSettings(clip_range="31.5,"), "mlperf", 64)
    assert (ranges.name, ranges.origin, ranges.count, ranges.variant) == ("custom", "CLIP at least 31.5", 64, "mlperf")
    few = {"fid_rank": "deficient: 64 images for 2048 dimensions"}
    verdict = judge(Scores(31.7, 200.0, 64, "mlperf", few), ranges)
    assert verdict.passed is True
    assert verdict.line == (
        "accuracy: [PASSED] CLIP_SCORE: 31.700 (Valid Range=[31.500,  inf]) | [NOT JUDGED] FID_SCORE: 200.000"
    )
    assert judge(Scores(31.4, 200.0, 64, "mlperf", few), ranges).passed is False
    assert judge(Scores(31.7, math.nan, 64, "mlperf", few), ranges).passed is False
    assert judge(Scores(math.inf, 200.0, 64, "mlperf", few), ranges).passed is False


def write(path, value):
    path.write_text(json.dumps(value))
    return RunSettings(ranges=path)


def test_the_entry_of_the_runs_count_and_variant_is_taken():
    ranges = custom_ranges(RunSettings(ranges=BUNDLE / RANGES), "shapes", 512)
    assert (ranges.name, ranges.count) == ("custom", 512)
    assert ranges.clip.lower == 98.84237084832914
    assert ranges.origin.startswith("shapes-512 in ")


def test_a_file_may_be_one_entry_and_cannot_call_itself_official(tmp_path):
    ranges = custom_ranges(write(tmp_path / "r.json", ranges_to_dict(OFFICIAL)), "mlperf", 5000)
    assert ranges.name == "custom"
    assert (ranges.clip, ranges.fid) == (OFFICIAL.clip, OFFICIAL.fid)


@pytest.mark.parametrize(
    ("entries", "got"),
    [
        ([OFFICIAL], "official (5000 captions, mlperf)"),
        ([], "none"),
        ([OFFICIAL, OFFICIAL], "official (5000 captions, mlperf), official (5000 captions, mlperf)"),
    ],
)
def test_a_file_without_just_one_entry_for_the_run_says_what_is_there(tmp_path, entries, got):
    settings = write(tmp_path / "r.json", {"ranges": [ranges_to_dict(entry) for entry in entries]})
    variant, count = ("mlperf", 5000) if len(entries) == 2 else ("shapes", 512)
    with pytest.raises(UsageError, match="not one entry") as caught:
        custom_ranges(settings, variant, count)
    assert caught.value.parts["got"] == got
    assert caught.value.parts["expected"] == f"one for {count} captions and the metric variant {variant}"


@pytest.mark.parametrize("content", [[], {"ranges": [1]}, {"ranges": 1}, {"clip": [1, 2]}])
def test_a_malformed_file_is_refused(tmp_path, content):
    with pytest.raises(AssetError, match="malformed"):
        custom_ranges(write(tmp_path / "r.json", content), "shapes", 512)
