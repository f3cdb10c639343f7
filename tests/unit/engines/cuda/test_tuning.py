"""Launch configurations: kept by kernel and shape, through a file and back."""

import json

import pytest

from sdxl_engine.engines.cuda.kernels import tuning
from sdxl_engine.engines.cuda.kernels.tuning import Configurations, load_configurations, save_configurations


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setattr(tuning, "_KERNELS", {})
    return Configurations("one"), Configurations("two")


@pytest.fixture
def stopwatch(monkeypatch):
    """The time of a launch is what it returns."""
    monkeypatch.setattr(tuning, "graphed_milliseconds", lambda launches, _: launches[0]())
    monkeypatch.setattr(tuning, "refuse_capture", lambda: None)


def test_the_fastest_is_kept_for_its_shape_alone(kernels, stopwatch):
    one, two = kernels
    timed = one.tune("a", [{"size": 3}, {"size": 1}, {"size": 2}], lambda configuration: configuration["size"])
    assert timed == [(1, {"size": 1}), (2, {"size": 2}), (3, {"size": 3})]
    assert one.get("a", {"size": 9}) == {"size": 1}
    assert one.get("b", {"size": 9}) == two.get("a", {"size": 9}) == {"size": 9}


def test_candidates_that_cannot_be_launched_are_passed_over(kernels, stopwatch):
    def launch(configuration):
        if configuration["size"] < 3:
            raise RuntimeError("out of shared memory")
        return configuration["size"]

    assert kernels[0].tune("a", [{"size": 1}, {"size": 4}], launch) == [(4, {"size": 4})]
    with pytest.raises(RuntimeError, match="one: none of 2 configurations runs for b") as caught:
        kernels[0].tune("b", [{"size": 1}, {"size": 2}], launch)
    assert "out of shared memory" in str(caught.value.__cause__)
    assert kernels[0].get("b", {}) == {}


def test_a_file_brings_them_back(kernels, stopwatch, tmp_path):
    kernels[0].tune("a", [{"size": 1}], lambda configuration: configuration["size"])
    path = tmp_path / "configurations.json"
    save_configurations(path)
    assert json.loads(path.read_text()) == {"one": {"a": {"size": 1}}, "two": {}}
    kernels[0].chosen.clear()
    load_configurations(path)
    assert kernels[0].get("a", {}) == {"size": 1}


def test_a_file_of_other_kernels_is_refused(kernels, tmp_path):
    path = tmp_path / "configurations.json"
    path.write_text('{"three": {}}')
    with pytest.raises(ValueError, match="has configurations of three, expected one, two"):
        load_configurations(path)
