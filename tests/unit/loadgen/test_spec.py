"""The spec: across JSON and back, and what it refuses."""

from __future__ import annotations

import json

import pytest

from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.loadgen.spec import LoadgenSpec


def test_round_trip(make_spec, tmp_path):
    spec = make_spec(source={"batch_size": 2, "nested": {"names": ["a"]}}, performance_sample_count=3)
    spec.write(tmp_path / "spec.json")
    assert LoadgenSpec.read(tmp_path / "spec.json") == spec


def test_loaded_count_is_all_samples_unless_said(make_spec):
    assert make_spec().loaded_count == 11
    assert make_spec(performance_sample_count=3).loaded_count == 3


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("mode", "Accuracy", "one of AccuracyOnly, PerformanceOnly"),
        ("scenario", "Server", "one of Offline"),
        ("profile", "v5.1", "one of v6.1"),
        ("sample_count", 0, "1 or more"),
        ("min_query_count", 0, "1 or more"),
        ("performance_sample_count", 0, "1 or more"),
        ("performance_sample_count", 12, "at most 11 samples"),
        ("expected_qps", float("nan"), "more than 0"),
        ("min_duration_ms", -1, "0 or more"),
        ("stall_timeout_s", 0.0, "more than 0"),
        ("factory", "module", "module:callable"),
        ("factory_options", {"path": object()}, "values that JSON can carry"),
    ],
)
def test_value_that_cannot_work(make_spec, tmp_path, field, value, expected):
    values = {"mode": "AccuracyOnly", "sample_count": 11, "log_dir": tmp_path, "factory": "a:b"}
    with pytest.raises(UsageError) as caught:
        LoadgenSpec(**values | {field: value})
    assert expected in caught.value.parts["expected"]
    assert caught.value.parts["from"] == f"LoadgenSpec.{field}"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"mode": "AccuracyOnly"}'])
def test_file_that_is_no_spec(tmp_path, content):
    path = tmp_path / "spec.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AssetError) as caught:
        LoadgenSpec.read(path)
    assert caught.value.parts["from"] == str(path)


def test_file_with_a_field_too_many(make_spec, tmp_path):
    path = tmp_path / "spec.json"
    make_spec().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"min_duration": 5}))
    with pytest.raises(AssetError, match="wrong fields"):
        LoadgenSpec.read(path)
