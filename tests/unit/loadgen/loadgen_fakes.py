"""Sources under test for the child process: a good one, and one for each way of going wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdxl_engine.data_parallel import DataParallel
from sdxl_engine.errors import AssetError
from sdxl_engine.loadgen import sut


class Tiny:
    """8 x 8 images; byte k of image i is (k + 7 i) mod 256. `fault` strikes in the batch with index 5.

    Each batch takes `delay_s`, or where `delayed` is given so many alone.
    """

    def __init__(
        self,
        *,
        count: int = 11,
        batch_size: int = 4,
        fault: str = "",
        delay_s: float = 0.0,
        delayed: float = float("inf"),
        pids: str = "",
    ):
        self.delayed = delayed
        self.batch_size, self.image_count = batch_size, count
        self.fault, self.delay_s, self.pids = fault, delay_s, pids
        self.closed = False

    def warm_up(self):
        if self.fault == "hang in warm-up":
            threading.Event().wait()
        if self.fault == "response lost":
            answer_all_but(5)
        if self.fault == "response twice":
            answer_twice(5)
        if self.pids:
            helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            Path(self.pids).write_text(f"{os.getpid()} {helper.pid}")

    def generate(self, indices):
        assert indices.dtype == np.int64
        assert 1 <= len(indices) <= self.batch_size
        time.sleep(self.delay_s if self.delayed > 0 else 0.0)
        self.delayed -= 1
        images = (np.arange(192) + 7 * indices[:, None]).astype(np.uint8).reshape(-1, 8, 8, 3)
        return self.strike(images) if 5 in indices else images

    def close(self):
        print("source closed")

    def strike(self, images):
        match self.fault:
            case "raise":
                raise ValueError("no image for caption 5")
            case "hang":
                threading.Event().wait()
            case "exit":
                sys.exit(0)
            case "vanish":
                os._exit(0)
            case "SIGABRT":
                os.abort()
            case "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case "one short":
                return images[:-1]
            case "float":
                return images.astype(np.float32)
            case "channels first":
                return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
            case "strided":
                return images[:, :, ::-1]
            case "other size":
                return np.zeros((len(images), 4, 4, 3), np.uint8)
            case "list":
                return images.tolist()
        return images


class Counted(Tiny):
    """Adds a line to a file for each batch."""

    def __init__(self, *, notes: str, **options):
        super().__init__(**options)
        self.notes = Path(notes)

    def generate(self, indices):
        with self.notes.open("a") as file:
            print(*indices.tolist(), file=file)
        return super().generate(indices)


class TwoPhase(Tiny):
    """Draws into two buffers that take turns, and notes in a file what is asked of it and when."""

    def __init__(self, *, notes: str, **options):
        super().__init__(**options)
        self.notes = Path(notes)
        self.buffers = [np.empty((self.batch_size, 8, 8, 3), np.uint8) for _ in range(2)]

    def start(self, indices):
        self.buffers.reverse()
        count = len(indices)
        images = self.buffers[0][:count]
        images[:] = (np.arange(192) + 7 * indices[:, None]).astype(np.uint8).reshape(-1, 8, 8, 3)
        if self.fault == "raise in start" and 5 in indices:
            raise ValueError("no image for caption 5")
        self.note("start", *indices.tolist())
        return Started(self, indices, images)

    def generate(self, indices):
        raise AssertionError("asked for in one phase")

    def note(self, *words):
        with self.notes.open("a") as file:
            print(*words, file=file)


@dataclass
class Started:
    source: TwoPhase
    indices: np.ndarray
    images: np.ndarray

    def result(self):
        self.source.note("result", *self.indices.tolist())
        return self.source.strike(self.images) if 5 in self.indices else self.images


def two_phases_but_generate_replaced(**options):
    """Like a pipeline of the user's that changes what `generate` gives: every image must pass through it."""
    source = TwoPhase(**options)
    source.generate = lambda indices: 255 - Tiny.generate(source, indices)
    return source


def on_two_devices(**options):
    """Tiny sources in two processes of LoadGen's own process."""
    return DataParallel("loadgen_fakes:Tiny", [("cpu", options), ("cpu", options)])


def answer_all_but(position):
    """Make the hand-over lose the response at `position` of the run."""
    intact, seen = sut.hand_over, []

    def hand_over(ids, images):
        keep = np.array([len(seen) + i != position for i in range(len(ids))])
        seen.extend(ids)
        return intact(ids[keep], np.ascontiguousarray(images[keep]))

    sut.hand_over = hand_over


def answer_twice(position):
    """Make the hand-over repeat the response at `position` of the run."""
    intact, seen = sut.hand_over, []

    def hand_over(ids, images):
        times = np.array([1 + (len(seen) + i == position) for i in range(len(ids))])
        seen.extend(ids)
        return intact(np.repeat(ids, times), np.repeat(images, times, axis=0))

    sut.hand_over = hand_over


def corrupt_bundle():
    raise AssetError("the bundle is corrupt", got="abc", expected="def", source="model.safetensors", fix="get it again")


class Noting:
    """A sink: the response of image i is the byte i; notes what it is given in a file."""

    def __init__(self, *, notes: str, batch_size: int, known: tuple[int, ...] = (), fault: str = ""):
        self.known = {index: np.array([index], np.uint8) for index in known}
        self.notes, self.fault = Path(notes), fault
        self._note("batch size", batch_size)

    def take(self, indices, images):
        assert images[:, 0, 0, 0].tolist() == [(7 * index) % 256 for index in indices.tolist()]
        if self.fault == "take":
            raise ValueError("no room for images")
        self._note("take", *indices.tolist())
        return indices.astype(np.uint8)[:, None]

    def finish(self):
        if self.fault == "finish":
            raise ValueError("the last block is lost")
        self._note("finish")

    def _note(self, *words):
        with self.notes.open("a") as file:
            print(*words, file=file)
