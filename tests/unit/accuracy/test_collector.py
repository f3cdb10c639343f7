"""Blocks, the thread that scores them, the record, and going on from it."""

import contextlib
import hashlib
import threading

import numpy as np
import pytest
from PIL import Image

from sdxl_engine.accuracy.collector import ROOMS, Collector
from sdxl_engine.accuracy.kept_images import KeptImages
from sdxl_engine.accuracy.records import RecordWriter, read_record
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.errors import AccuracyError


def collect(networks, captions, images, path, record=None, stop=None, block=4, **more):
    """Take images three at a time, up to `stop`; returns the collector, not yet finished."""
    writer = RecordWriter(path, {"run": {}} if record is None else None, record)
    collector = Collector(Scorer(networks), captions, block=block, writer=writer, record=record, **more)
    done = len(collector.tally)
    ids = list(captions)
    for start in range(done, stop or len(ids), 3):
        collector.take(ids[start : start + 3], images[start : start + 3])
    return collector


def bits(scores):
    return scores.clip.hex(), scores.fid.hex()


@pytest.mark.parametrize("stop", [3, 9, 12, 18])
def test_a_run_that_stops_goes_on_from_its_record_with_the_same_bits(networks, captions, images, tmp_path, stop):
    whole = collect(networks, captions, images, tmp_path / "whole")
    whole.finish()
    part = collect(networks, captions, images, tmp_path / "part", stop=stop)
    part._blocks.put(None)  # as a kill leaves it: whole blocks are in the record, the rest is lost
    part._worker.join()
    part._writer.close()
    record = read_record(tmp_path / "part")
    assert len(record.clip) == min(stop, 20) // 4 * 4
    rest = collect(networks, captions, images, tmp_path / "part", record)
    rest.finish()
    assert bits(rest.scores()) == bits(whole.scores())
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_digests_are_those_of_the_bytes_and_the_images_are_copied(networks, captions, images, tmp_path):
    collector = Collector(Scorer(networks), captions, images=KeptImages(tmp_path, None, {}))
    batch = images[:4].copy()
    digests = collector.take([100, 101, 102, 103], batch)
    assert digests == [hashlib.sha256(image.tobytes()).hexdigest() for image in images[:4]]
    batch[:] = 7
    collector.finish()
    for key, image in zip((100, 101, 102, 103), images, strict=False):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{key}.png")), image)


def test_what_scoring_raises_is_raised_where_the_images_come_from(networks, captions, images):
    class Broken(Scorer):
        def score(self, *_arguments):
            raise ZeroDivisionError

    collector = Collector(Broken(networks), captions, block=2)
    with pytest.raises(ZeroDivisionError):
        for start in range(0, 20, 2):
            collector.take(list(captions)[start : start + 2], images[start : start + 2])
    with pytest.raises(ZeroDivisionError):
        collector.finish()


def test_what_keeping_a_block_raises_is_raised_and_no_later_block_is_recorded(networks, captions, images):
    class Full:
        appended = 0

        def append(self, block):
            self.appended += 1
            raise OSError("no space left on device")

        def close(self):
            pass

    writer = Full()
    collector = Collector(Scorer(networks), captions, block=2, writer=writer)
    with pytest.raises(OSError, match="no space"):
        for start in range(0, 20, 2):
            collector.take(list(captions)[start : start + 2], images[start : start + 2])
        collector.finish()
    with contextlib.suppress(OSError):
        collector.finish()
    assert writer.appended == 1


def test_an_id_that_waits_or_is_scored_is_not_taken_again(networks, captions, images):
    collector = Collector(Scorer(networks), captions, block=32)
    collector.take([100], images[:1])
    with pytest.raises(AccuracyError, match="second image"):
        collector.take([100], images[:1])
    with pytest.raises(AccuracyError, match="not in this run"):
        collector.take([7], images[:1])
    collector.finish()


def test_images_wait_for_a_scorer_that_is_behind(networks, captions, images):
    """Memory is bounded: one block in work, one that waits, and the next is not taken in."""
    gate = threading.Event()

    class Slow(Scorer):
        def score(self, *arguments):
            gate.wait()
            return super().score(*arguments)

        def room(self, shape):
            rooms.append(shape)
            return super().room(shape)

    rooms = []
    collector = Collector(Slow(networks), captions, block=2)
    taken = []

    def feed():
        with contextlib.suppress(AccuracyError):
            for start in range(0, 20, 2):
                collector.take(list(captions)[start : start + 2], images[start : start + 2])
                taken.append(start)

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join(timeout=0.5)
    assert feeder.is_alive()
    assert len(taken) <= 2
    gate.set()
    feeder.join()
    collector.finish()
    assert len(collector.tally) == 20
    assert rooms == [(2, *images.shape[1:])] * ROOMS


def test_an_image_of_another_size_is_refused(networks, captions, images):
    collector = Collector(Scorer(networks), captions)
    collector.take([100], images[:1])
    with pytest.raises(AccuracyError, match="another size or type") as caught:
        collector.take([101], images[1:2, 1:])
    assert str((1, images.shape[1] - 1, *images.shape[2:])) in str(caught.value)
