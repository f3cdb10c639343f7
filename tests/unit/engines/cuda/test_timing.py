"""Which candidate is taken, by a stopwatch of our own in place of CUDA's events."""

import itertools
import math

import pytest
import torch

from sdxl_engine.engines.cuda import computing, timing
from sdxl_engine.engines.cuda.computing import Computing
from sdxl_engine.engines.cuda.kernels import tuning
from sdxl_engine.engines.cuda.kernels.tuning import Configurations
from sdxl_engine.engines.cuda.timing import fastest


@pytest.fixture
def clock(monkeypatch):
    """A candidate takes as long as it returns, times how slow the GPU is by then."""

    class Clock:
        slowdown = itertools.repeat(1.0)

        def timed(self, runs):
            return [run() * next(self.slowdown) for run in runs]

    clock = Clock()
    monkeypatch.setattr(timing, "_timed", clock.timed)
    monkeypatch.setattr(timing, "refuse_capture", lambda: None)
    return clock


def taking(*times):
    return [lambda time=time: time for time in times]


def test_the_fastest_is_taken_where_it_is_clearly_so(clock):
    assert fastest(taking(3.0, 1.0, 2.0)) == (1, [3.0, 1.0, 2.0])
    assert fastest(taking(1.0, 0.97))[0] == 1
    assert fastest(taking(1.0, 0.99))[0] == 0


def test_a_clock_that_drifts_slows_all_alike(clock):
    """By a quarter over the run: of the same candidates timed one after another, the first would seem the fastest."""
    clock.slowdown = itertools.count(1.0, 0.01)
    best, times = fastest(taking(1.0, 0.95, 1.05))
    assert best == 1
    assert times[1] < times[0] < times[2]
    clock.slowdown = itertools.count(1.0, 0.01)
    assert fastest(taking(1.0, 1.0, 1.0, 1.0))[0] == 0


def test_those_far_behind_are_not_timed_to_the_end(clock):
    counts = [0, 0, 0]

    def counting(index, time):
        def run():
            counts[index] += 1
            return time

        return run

    assert fastest([counting(0, 2.0), counting(1, 1.0), counting(2, 1.1)], rounds=8) == (1, [2.0, 1.0, 1.1])
    assert counts == [3, 9, 9]  # with the warm-up


def test_those_that_do_not_run_are_passed_over(clock):
    def too_large():
        raise ValueError("out of shared memory")

    assert fastest([too_large, *taking(2.0, 3.0)]) == (1, [math.inf, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="none of 2 candidates runs") as caught:
        fastest([too_large, too_large])
    assert "out of shared memory" in str(caught.value.__cause__)


def test_a_kernels_configuration_is_kept_for_its_key_and_kind_of_gpu_alone(clock, monkeypatch):
    monkeypatch.setattr(tuning, "kind_of", lambda device: ["H100", "H200", "H100"][device.index])
    first, other, like_the_first = (torch.device("cuda", number) for number in range(3))
    kernel = Configurations()
    candidates = [{"size": 3}, {"size": 1}, {"size": 2}]
    assert kernel.tune(first, "a", candidates, lambda configuration: configuration["size"]) == [3, 1, 2]
    assert kernel.chosen(first) == kernel.chosen(like_the_first) == {"a": {"size": 1}}
    assert kernel.chosen(other) == {}
    kernel.tune(other, "a", candidates, lambda configuration: 1 / configuration["size"])
    assert kernel.chosen(other) == {"a": {"size": 3}}
    assert kernel.chosen(first) == {"a": {"size": 1}}


def test_an_engine_takes_and_keeps_the_choices_of_its_own_kind_of_gpu(monkeypatch):
    monkeypatch.setattr(computing, "CONFIGURATIONS", Configurations())
    monkeypatch.setattr(tuning, "kind_of", lambda device: device.type)
    kept = {"conv3x3": {"some shape": {"size": 1}}}
    engine = Computing(torch.device("cpu"), kept)
    assert engine.choices == kept
    assert Computing(torch.device("meta")).choices == {"conv3x3": {}}
