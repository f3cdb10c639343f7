"""What a sink is given, what LoadGen logs then, and that its failure ends the test."""

from __future__ import annotations

import pytest

from sdxl_engine.errors import LoadgenError, UsageError
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.runner import run_loadgen


@pytest.fixture
def sink_spec(make_spec, tmp_path):
    def make(**options):
        return make_spec(
            sink="loadgen_fakes:Noting",
            sink_options={"notes": str(tmp_path / "notes"), **options},
            source={"count": 11},
        )

    return make


def logged(spec):
    return {entry.qsl_idx: entry.data for entry in AccuracyLog(spec.log_dir / ACCURACY_LOG, 11).entries()}


def test_the_sink_gets_each_image_in_order_and_loadgen_logs_its_response(sink_spec, tmp_path):
    spec = sink_spec()
    result = run_loadgen(spec)
    assert (result.samples, result.errors) == (11, ())
    assert (tmp_path / "notes").read_text().splitlines() == [
        "batch size 4",
        "take 0 1 2 3",
        "take 4 5 6 7",
        "take 8 9 10",
        "finish",
    ]
    assert logged(spec) == {row: bytes([row]) for row in range(11)}


def test_what_the_sink_knows_is_answered_and_not_drawn(sink_spec, tmp_path):
    spec, beats = sink_spec(known=[0, 1, 2, 3, 10]), []
    result = run_loadgen(spec, beats.append)
    assert result.samples == 11
    assert beats[-1].done == 11
    assert (tmp_path / "notes").read_text().splitlines()[1:] == ["take 4 5 6 7", "take 8 9", "finish"]
    assert logged(spec) == {row: bytes([row]) for row in range(11)}


@pytest.mark.parametrize(("fault", "words"), [("take", "no room for images"), ("finish", "the last block is lost")])
def test_a_failure_of_the_sink_ends_the_test(sink_spec, fault, words):
    with pytest.raises(LoadgenError, match=words):
        run_loadgen(sink_spec(fault=fault))


def test_a_sink_that_is_not_there_is_named(make_spec):
    with pytest.raises(UsageError, match="sink of the images cannot be imported"):
        run_loadgen(make_spec(sink="loadgen_fakes:Nothing"))
