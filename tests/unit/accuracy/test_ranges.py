"""Ranges, the verdict and the benchmark's line."""

import json
import math
import subprocess
import sys

import pytest

from sdxl_engine.accuracy.ranges import OFFICIAL, derive, judge, ranges_from_dict, ranges_to_dict
from sdxl_engine.errors import AssetError
from sdxl_engine.results import Scores


def scores(clip=31.713050620, fid=23.604639465, count=5000, variant="mlperf"):
    return Scores(clip, fid, count, variant)


def test_official_ranges_are_the_reference_with_its_percentages():
    derived = derive("official", 31.74981837, 23.48046692, 0.2, 2, 5000, OFFICIAL.origin, variant="mlperf")
    limits = [(OFFICIAL.clip, derived.clip), (OFFICIAL.fid, derived.fid)]
    for official, ours in limits:
        assert (ours.lower, ours.upper) == pytest.approx((official.lower, official.upper), abs=1e-8)
    assert (OFFICIAL.clip.lower, OFFICIAL.clip.upper) == (31.68631873, 31.81331801)
    assert (OFFICIAL.fid.lower, OFFICIAL.fid.upper) == (23.01085758, 23.95007626)
    assert (OFFICIAL.count, OFFICIAL.variant) == (5000, "mlperf")


def test_line_of_a_pass():
    verdict = judge(scores(), OFFICIAL)
    assert verdict.passed is True
    assert verdict.line == (
        "accuracy: [PASSED] CLIP_SCORE: 31.713 (Valid Range=[31.686,  31.813])"
        " | [PASSED] FID_SCORE: 23.605 (Valid Range=[23.011,  23.950])"
    )


def test_line_of_a_fail_names_the_metric_that_fails():
    verdict = judge(scores(clip=32.16486, fid=29.18939), OFFICIAL)
    assert verdict.passed is False
    assert verdict.line == (
        "accuracy: [FAILED] CLIP_SCORE: 32.165 (Valid Range=[31.686,  31.813])"
        " | [FAILED] FID_SCORE: 29.189 (Valid Range=[23.011,  23.950])"
    )
    only_fid = judge(scores(fid=29.18939), OFFICIAL)
    assert only_fid.passed is False
    assert "[PASSED] CLIP_SCORE" in only_fid.line
    assert only_fid.reason == "outside official range: FID_SCORE"


@pytest.mark.parametrize("metric", ["clip", "fid"])
@pytest.mark.parametrize(("end", "away"), [("lower", -math.inf), ("upper", math.inf)])
def test_ends_belong_to_the_range_and_the_next_float_does_not(metric, end, away):
    limit = getattr(getattr(OFFICIAL, metric), end)
    assert judge(scores(**{metric: limit}), OFFICIAL).passed is True
    assert judge(scores(**{metric: math.nextafter(limit, away)}), OFFICIAL).passed is False


def test_a_score_that_rounds_into_the_range_fails():
    verdict = judge(scores(clip=31.6863), OFFICIAL)
    assert verdict.passed is False
    assert "[FAILED] CLIP_SCORE: 31.686 (Valid Range=[31.686," in verdict.line


@pytest.mark.parametrize("count", [5000, 40])
@pytest.mark.parametrize(("metric", "text"), [("clip", "[FAILED] CLIP_SCORE: nan"), ("fid", "[FAILED] FID_SCORE: nan")])
def test_nan_fails_even_where_the_ranges_do_not_apply(metric, text, count):
    verdict = judge(scores(**{metric: math.nan}, count=count), OFFICIAL)
    assert verdict.passed is False
    assert text in verdict.line
    assert "not finite" in verdict.reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"count": 512}, "512 of 5000 captions: not an official score"),
        ({"variant": "shapes"}, "scores of variant 'shapes'; the official ranges hold for 'mlperf'"),
    ],
)
def test_no_pass_for_another_count_or_variant(other, reason):
    verdict = judge(scores(**other), OFFICIAL)
    assert verdict.passed is None
    assert verdict.reason == reason
    assert verdict.line == "accuracy: [NOT JUDGED] CLIP_SCORE: 31.713 | [NOT JUDGED] FID_SCORE: 23.605"


def test_ranges_survive_json_to_the_last_bit():
    ranges = derive("shapes-512", 28.123456789, 3.3333333333, 1, 10, 512, "fp32 NoOpt")
    assert ranges.variant == "shapes"
    assert ranges_from_dict(json.loads(json.dumps(ranges_to_dict(ranges)))) == ranges


@pytest.mark.parametrize(
    "change", [{"clip": [1]}, {"fid": [2, 1]}, {"clip": [0, math.nan]}, {"count": None}, {"fid": "ab"}]
)
def test_malformed_ranges_are_refused(change):
    with pytest.raises(AssetError, match="malformed") as caught:
        ranges_from_dict(ranges_to_dict(OFFICIAL) | change, "ranges.json")
    assert caught.value.parts["from"] == "ranges.json"


@pytest.mark.parametrize("value", [[], None, {"name": "x"}])
def test_ranges_of_another_kind_are_refused(value):
    with pytest.raises(AssetError, match="malformed"):
        ranges_from_dict(value)


def test_importing_the_ranges_is_cheap():
    code = (
        "import sys, sdxl_engine.accuracy.ranges\n"
        "print([name for name in ('numpy', 'torch', 'open_clip', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
