"""Results: what travels is JSON, whole, and comes back equal."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
from fake_measure import RANGES, accuracy_run, performance_run

from sdxl_engine.report import Result, plain
from sdxl_engine.results import Range
from sdxl_engine.settings import RunSettings

ROOT = Path("/project")
SETTINGS = RunSettings(build_dir=ROOT / "build")


def strict(text: str):
    def refuse(constant: str):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("run", [accuracy_run(), performance_run(), accuracy_run(math.inf, -math.inf)])
def test_a_result_comes_back_equal(run):
    result = Result.of(run, SETTINGS, ROOT)
    assert Result.loads(result.dumps()) == result


def test_nan_is_null_and_says_so():
    result = Result.of(accuracy_run(clip=math.nan), SETTINGS, ROOT)
    record = next(item for item in strict(result.dumps())["metrics"] if item["name"] == "clip_score")
    assert (record["value"], record["not_finite"]) == (None, "nan")
    assert math.isnan(Result.loads(result.dumps()).metric("clip_score").value)


def test_every_figure_has_unit_and_direction():
    directions = {}
    for run in (accuracy_run(), performance_run()):
        for metric in Result.of(run, SETTINGS, ROOT).metrics:
            assert metric.unit
            directions[metric.name] = metric.higher_is_better
    assert directions == {
        "duration": False,
        "samples_per_second": True,
        "peak_memory": False,
        "clip_score": True,
        "fid_score": False,
    }


def test_scores_carry_variant_and_range():
    metric = Result.of(accuracy_run(), SETTINGS, ROOT).metric("fid_score")
    assert (metric.variant, metric.valid_range, metric.interval) == ("shapes", (1.0, 2.0), (1.375, 1.625))


def test_an_open_end_is_null():
    ranges = dataclasses.replace(RANGES, clip=Range(90.0, math.inf), fid=Range(-math.inf, math.inf))
    result = Result.of(accuracy_run(ranges=ranges), SETTINGS, ROOT)
    assert Result.loads(result.dumps()) == result
    assert result.metric("clip_score").valid_range == (90.0, None)
    assert result.metric("fid_score").valid_range is None


def test_scores_carry_what_they_were_computed_with():
    run = accuracy_run()
    identity = {"clip_weights_sha256": "40d3", "clip_activation": "QuickGELU"}
    run = dataclasses.replace(run, scores=dataclasses.replace(run.scores, identity=identity))
    assert strict(Result.of(run, SETTINGS, ROOT).dumps())["metric_identity"] == identity
    assert Result.of(performance_run(), SETTINGS, ROOT).metric_identity == {}


def test_log_folder_is_relative_to_the_root_where_it_lies_below_it():
    assert Result.of(performance_run(), SETTINGS, ROOT).log_dir == "build/logs/p"
    assert Result.of(performance_run(log_dir=ROOT / "build" / "x"), SETTINGS, ROOT).log_dir == "build/x"
    assert Result.of(performance_run(log_dir=Path("/elsewhere")), SETTINGS, ROOT).log_dir == "/elsewhere"


class _Colour(enum.Enum):
    RED = 1


def test_foreign_values_become_what_json_has():
    value = {1: Path("a"), "b": (1, 2.5, None, True), "c": np.float32(0.5), "d": np.int64(3), "e": math.nan}
    assert plain(value) == {"1": "a", "b": [1, 2.5, None, True], "c": 0.5, "d": 3, "e": "nan"}
    assert plain(_Colour.RED) == "_Colour.RED"
    assert type(plain(np.float64(0.5))) is float
