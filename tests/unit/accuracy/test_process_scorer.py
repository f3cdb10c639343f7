"""The scorer in a process of its own: the same bits and errors as in this one, and never a hang."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial

import numpy as np
import psutil
import pytest

from sdxl_engine.accuracy.fid import Statistics
from sdxl_engine.accuracy.networks import MetricNetworks, load_shapes_metrics
from sdxl_engine.accuracy.process_scorer import ProcessScorer
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.errors import AccuracyError, UsageError
from sdxl_engine.shapes.bundle import BUNDLE, METRICS
from sdxl_engine.shards import parse_shard

COUNT = 36
CAPTIONS = [
    f"a {size} {colour} circle" for size in ("small", "large", "tiny") for colour in ("red", "green", "blue")
] * 4


@pytest.fixture(scope="module")
def pictures():
    """(36, 128, 128, 3) uint8: noise of several brightnesses."""
    generator = np.random.default_rng(3)
    noise = generator.integers(0, 256, (COUNT, 128, 128, 3), dtype=np.uint8)
    return noise // np.arange(1, COUNT + 1, dtype=np.uint8)[:, None, None, None]


@pytest.fixture(scope="module")
def apart():
    with closing(ProcessScorer(partial(load_shapes_metrics, BUNDLE / METRICS))) as scorer:
        yield scorer


def assert_same(scored, other):
    for one, two in zip(scored, other, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def test_the_same_bits_as_in_this_process(apart, pictures):
    here = Scorer(load_shapes_metrics(BUNDLE / METRICS))
    assert (apart.metric.variant, apart.metric.identity) == (here.metric.variant, here.metric.identity)
    np.testing.assert_array_equal(apart.metric.statistics.sigma, here.metric.statistics.sigma)
    for block in (slice(4), slice(32), slice(32, COUNT)):  # the memory grows, and is used again
        images, captions = pictures[block], CAPTIONS[block]
        assert_same(apart.score(images, captions), here.score(images, captions))


def test_images_in_a_room_are_scored_where_they_lie(apart, pictures):
    rooms = [apart.room((8, *pictures.shape[1:])) for _ in range(2)]
    for start, room in enumerate(rooms):
        room[:] = pictures[start : start + 8]
    size = os.fstat(apart._memory_fd).st_size
    scored = [apart.score(room[2:6], CAPTIONS[:4]) for room in rooms]
    assert os.fstat(apart._memory_fd).st_size == size
    for start, found in enumerate(scored):
        assert_same(found, apart.score(pictures[start + 2 : start + 6], CAPTIONS[:4]))


def test_errors_are_the_same_and_the_next_block_is_scored(apart, pictures):
    before = apart.score(pictures[:2], CAPTIONS[:2])
    for wrong in (pictures[:1], pictures[:2].astype(np.float32), pictures[:2, :0]):
        with pytest.raises(AccuracyError, match="cannot be scored") as caught:
            apart.score(wrong, CAPTIONS[:2])
        assert caught.value.parts == {"got": f"{wrong.dtype} {wrong.shape}", "expected": "uint8 (2, 128, 128, 3)"}
    with pytest.raises(AccuracyError, match="the scorer failed: ValueError: text input") as caught:
        apart.score(pictures[:2], [None, None])
    assert "_text_embeddings" in caught.value.parts["got"], "the traceback"
    assert_same(apart.score(pictures[:2], CAPTIONS[:2]), before)


def test_an_error_of_the_loading_is_raised_here():
    with pytest.raises(UsageError, match="not one of a number of shards") as caught:
        ProcessScorer(partial(parse_shard, "3/2"))  # the lightest thing that raises a UsageError
    assert "in the scorer's process" in caught.value.__notes__[0]


def test_a_process_that_ends_while_it_loads_is_one_clear_error():
    this = psutil.Process()
    descriptors, children = this.num_fds(), this.children()
    with pytest.raises(AccuracyError, match="ended while loading its networks: exit status 3"):
        ProcessScorer(partial(os._exit, 3))
    assert (this.num_fds(), this.children()) == (descriptors, children)


def test_a_killed_process_is_one_clear_error(images):
    no_networks = partial(MetricNetworks, "none", None, None, Statistics(np.zeros(1), np.eye(1)))
    captions = ["a"] * len(images)
    with closing(ProcessScorer(no_networks)) as scorer:
        os.kill(scorer.pid, signal.SIGSTOP)  # it does not answer, so that the kill comes while it is waited for
        threading.Timer(0.2, os.kill, (scorer.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        with pytest.raises(AccuracyError, match="ended while scoring 20 images: killed by SIGKILL") as caught:
            scorer.score(images, captions)
        assert time.monotonic() - began >= 0.2
        assert "lack of memory" in caught.value.parts["fix"]
        with pytest.raises(AccuracyError, match="SIGKILL"):
            scorer.score(images, captions)


def test_the_process_ends_when_its_parent_is_killed():
    code = (
        "import time; from functools import partial; from sdxl_engine.accuracy.process_scorer import ProcessScorer;"
        "ProcessScorer(partial(time.sleep, 600))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        deadline = time.monotonic() + 30
        while not (found := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.02)
        (child,) = found
        while "scorer_child" not in " ".join(child.cmdline()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.is_running()
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert alive == []
