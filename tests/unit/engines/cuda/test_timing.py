"""Which candidate is taken, by a stopwatch of our own in place of CUDA's events."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from sdxl_engine.engines.cuda import computing, timing
from sdxl_engine.engines.cuda.computing import Computing
from sdxl_engine.engines.cuda.kernels import conv3x3, tuning
from sdxl_engine.engines.cuda.kernels.tuning import Configurations
from sdxl_engine.engines.cuda.timing import fastest
from sdxl_engine.errors import EngineError


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


@pytest.fixture
def conv_choices(monkeypatch):
    """What `choices.json` holds of convolutions, of kernels for which nothing is known yet."""
    monkeypatch.setattr(computing, "CONFIGURATIONS", Configurations())
    monkeypatch.setattr(tuning, "kind_of", lambda device: device.type)
    found = {}
    for dtype, sizes, phases in (("fp8", (16, 32, 40, 640, 1280), 1), ("fp16", (2, 64, 64, 320, 320), 4)):
        *shape, out_channels = sizes
        x = torch.empty(shape, dtype={"fp8": torch.float8_e4m3fn, "fp16": torch.float16}[dtype], device="meta")
        weights = SimpleNamespace(in_channels=shape[3], out_channels=out_channels, phases=phases)
        found[conv3x3._key(x, weights)] = conv3x3.candidates(x, weights)[-1]
    assert len(found) == 2
    return found


def test_an_engine_takes_and_keeps_the_choices_of_its_own_kind_of_gpu(conv_choices):
    kept = {"conv3x3": conv_choices}
    engine = Computing(torch.device("cpu"), kept)
    assert engine.choices == kept
    assert Computing(torch.device("meta")).choices == {"conv3x3": {}}


SPOILT = {
    "a block size of no candidate": lambda key, configuration: (key, {**configuration, "BLOCK_M": 96}),
    "a name too many": lambda key, configuration: (key, {**configuration, "num_ctas": 2}),
    "names that are missing": lambda key, configuration: (key, {"BLOCK_M": 256}),
    "no configuration": lambda key, _: (key, None),
    "another type's": lambda key, configuration: (key.replace("fp8", "fp16"), configuration),
    "an unknown type": lambda key, configuration: (key.replace("fp8", "int8"), configuration),
    "a number too many": lambda key, configuration: (f"{key} 1", configuration),
    "no shape": lambda _, configuration: ("", configuration),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_convolutions_configuration_that_its_kernel_does_not_have_is_refused(conv_choices, spoil):
    key, configuration = spoil(*next(iter(conv_choices.items())))
    with pytest.raises(EngineError) as caught:
        Computing(torch.device("cpu"), {"conv3x3": conv_choices | {key: configuration}})
    shown = str(caught.value)
    assert repr(key) in shown
    assert str(configuration) in caught.value.parts["got"]
    assert "expected:" in shown
    assert "sdxl-engine generate-engines --engine cuda" in caught.value.parts["fix"]
    assert Computing(torch.device("cpu")).choices == {"conv3x3": {}}, "what was refused is taken all the same"
