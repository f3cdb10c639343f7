"""Sources whose batches are started before their results are asked for."""

from __future__ import annotations

import pytest

from sdxl_engine.errors import LoadgenError
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.runner import run_loadgen


@pytest.fixture
def two_phases(make_spec, tmp_path):
    def make(factory="TwoPhase", source=None, **values):
        options = {"notes": str(tmp_path / "notes"), **(source or {})}
        return make_spec(factory=f"loadgen_fakes:{factory}", source=options, **values)

    return make


def logged(spec):
    return {entry.qsl_idx: entry.data for entry in AccuracyLog(spec.log_dir / ACCURACY_LOG, 11).entries()}


def image(index):
    return bytes((k + 7 * index) % 256 for k in range(192))


def test_a_batch_is_started_before_the_one_before_is_asked_for(two_phases, tmp_path):
    """The fake draws into two buffers: a batch handed over too late would carry the bytes of the one after the next."""
    spec = two_phases()
    result = run_loadgen(spec)
    assert (result.samples, result.errors) == (11, ())
    notes = [line.split(maxsplit=1) for line in (tmp_path / "notes").read_text().splitlines()]
    assert [word for word, _ in notes] == ["start", "start", "result", "start", "result", "result"]
    started, asked_for = ([batch for word, batch in notes if word == which] for which in ("start", "result"))
    assert started == asked_for
    assert [len(batch.split()) for batch in started] == [4, 4, 3]
    assert logged(spec) == {index: image(index) for index in range(11)}


def test_no_batch_of_a_query_waits_for_the_next_query(two_phases, tmp_path):
    """Sets of 3 in batches of 2: at the end of each query nothing is under way."""
    spec = two_phases(performance_sample_count=3, source={"batch_size": 2})
    assert run_loadgen(spec).samples == 11
    steps = [line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()]
    assert steps == ["start", "start", "result", "result"] * 3 + ["start", "result"]
    assert logged(spec) == {index: image(index) for index in range(11)}


def test_the_sink_gets_batches_in_order(two_phases, tmp_path):
    spec = two_phases(sink="loadgen_fakes:Noting", sink_options={"notes": str(tmp_path / "taken"), "known": [2, 9]})
    assert run_loadgen(spec).samples == 11
    assert (tmp_path / "taken").read_text().splitlines()[1:] == ["take 0 1 3 4", "take 5 6 7 8", "take 10", "finish"]


@pytest.mark.parametrize("fault", ["raise in start", "raise"])
def test_an_exception_in_either_phase_ends_the_test(two_phases, fault):
    with pytest.raises(LoadgenError, match="failed while running: ValueError: no image for caption 5") as caught:
        run_loadgen(two_phases(source={"fault": fault}))
    assert f"in {'start' if fault == 'raise in start' else 'result'}\n" in caught.value.parts["got"]


def test_a_wrong_result_is_named(two_phases):
    with pytest.raises(LoadgenError, match="wrong batch") as caught:
        run_loadgen(two_phases(source={"fault": "one short"}, sample_count=8))
    assert caught.value.parts["got"] == "uint8 (3, 8, 8, 3), C-contiguous"
    assert caught.value.parts["from"] == "TwoPhase.start"


def test_where_generate_alone_is_replaced_every_image_comes_from_it(two_phases, tmp_path):
    spec = two_phases("two_phases_but_generate_replaced")
    assert run_loadgen(spec).samples == 11
    assert logged(spec) == {index: bytes(255 - byte for byte in image(index)) for index in range(11)}
    assert not (tmp_path / "notes").exists()
