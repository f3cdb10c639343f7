"""What a source is taken to reach, by a clock that the source itself moves."""

import numpy as np
import pytest

from sdxl_engine.loadgen import pace


@pytest.fixture
def clock(monkeypatch):
    """Seconds."""
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


class Source:
    """Batches of 4 that take `seconds`, one after the other; the last of these for all that follow."""

    batch_size = 4

    def __init__(self, clock, *seconds):
        self.clock, self.seconds, self.asked = clock, list(seconds), []

    def generate(self, indices):
        self.asked.append(indices.tolist())
        self.clock[0] += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return np.zeros((len(indices), 8, 8, 3), np.uint8)


class Parallel(Source):
    """Three devices, which have three batches each at a time; every device draws one in the first of `seconds`."""

    batches_in_flight = 9

    def start(self, indices):
        self.asked.append(indices.tolist())
        return Drawn(self, self.clock[0] + (1 + (len(self.asked) - 1) // 3) * self.seconds[0])


class Drawn:
    def __init__(self, source, ready):
        self.source, self.ready = source, ready

    def result(self):
        self.source.clock[0] = max(self.source.clock[0], self.ready)
        return np.zeros((4, 8, 8, 3), np.uint8)


def test_the_fastest_of_the_rounds_of_a_second(clock):
    source = Source(clock, 0.25, 0.25, 0.2, 0.1, 0.2, 0.2, 0.01)
    assert pace.measured_qps(source, 11) == pytest.approx(1.25 * 8 / 0.3)
    assert source.asked == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


def test_one_round_that_takes_longer_than_that(clock):
    source = Source(clock, 8.0)
    assert pace.measured_qps(source, 3) == pytest.approx(1.25 * 4 / 8)
    assert source.asked == [[0, 1, 2, 0], [1, 2, 0, 1]]


def test_several_devices_draw_side_by_side(clock):
    source = Parallel(clock, 2.0)
    assert pace.measured_qps(source, 36) == pytest.approx(1.25 * 3 * 4 / 2)
    assert len(source.asked) == 9
