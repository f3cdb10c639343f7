"""Collects the images of a run into blocks, scores them in a thread of its own, and keeps the record in another."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.records import Block
from sdxl_engine.accuracy.tally import Tally
from sdxl_engine.errors import AccuracyError
from sdxl_engine.shards import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.kept_images import KeptImages
    from sdxl_engine.accuracy.records import Record, RecordWriter
    from sdxl_engine.accuracy.scorer import ImageScorer
    from sdxl_engine.results import Scores

    Images = NDArray[np.uint8]

ROOMS = 3
"""Blocks whose images are held: one that fills, one that is scored, one that waits for that or is kept."""


class Collector:
    """Scores a run's images while the next ones are drawn or read.

    While a block is scored, the one before it is kept (pictures and record) and the one after it fills. Images lie in
    memory that the scorer gives, and nowhere else: `ROOMS` blocks however fast images come (0.3 GB for 1024x1024).

    Args:
        scorer: Of the metric variant.
        captions: The caption of every id that the run must give an image for.
        block: Images that are scored together.
        writer: Of the run's record; None keeps none.
        record: What an earlier part of the run has scored already.
        images: Keeps some as pictures; None keeps none.
    """

    def __init__(
        self,
        scorer: ImageScorer,
        captions: Mapping[int, str],
        *,
        block: int = BLOCK,
        writer: RecordWriter | None = None,
        record: Record | None = None,
        images: KeptImages | None = None,
    ) -> None:
        self.tally = Tally(captions)
        for done in record.blocks if record is not None else ():
            self.tally.add(done)
        self._scorer, self._captions, self._block = scorer, captions, block
        self._writer, self._images = writer, images
        self._ids: list[int] = []
        self._digests: list[str] = []
        self._filling: Images | None = None
        self._rooms = 0
        self._spare: queue.SimpleQueue[Images] = queue.SimpleQueue()
        self._blocks: queue.Queue[tuple[list[int], list[str], Images] | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._hashers = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="hasher")
        self._worker = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._worker.start()

    def take(self, ids: Sequence[int], images: Images) -> list[str]:
        """Take images in; they are copied.

        Args:
            ids: B ids, each in `captions` and none taken before.
            images: (B, H, W, 3) uint8 RGB, 0 to 255.

        Returns:
            The hex SHA-256 of each image's bytes.

        Raises:
            AccuracyError: an id is foreign or comes a second time, or an image is of another size than those before; or
                what scoring an earlier block raised.
        """
        keys = [int(key) for key in ids]
        self.tally.check_ids([*self._ids, *keys])
        digests: list[str] = []
        start = 0
        while start < len(keys):
            filled = len(self._ids)
            rows = slice(start, start + self._block - filled)
            self._filling = self._room(images) if self._filling is None else self._filling
            self._check_like(images, self._filling)
            # Each by a thread of its own; none of it holds the interpreter's lock.
            found = list(self._hashers.map(_put, images[rows], self._filling[filled:]))
            digests += found
            self._ids += keys[rows]
            self._digests += found
            if len(self._ids) == self._block:
                self._hand_on()
            start = rows.stop
        return digests

    def finish(self) -> None:
        """Score what is left, and wait for it.

        Raises:
            AccuracyError: see `take`.
        """
        if self._ids:
            self._hand_on()
        self._blocks.put(None)
        self._worker.join()
        self._hashers.shutdown()
        if self._writer is not None:
            self._writer.close()
        self._raise()

    def scores(self) -> Scores:
        """Scores of the whole run, which must be finished; see `Tally.scores`."""
        metric = self._scorer.metric
        return self.tally.scores(metric.statistics, metric.variant, metric.identity)

    def _room(self, images: Images) -> Images:
        """Memory for a block, that of an earlier one once there are `ROOMS`; waits while all are in use."""
        if self._rooms < ROOMS and self._spare.empty():
            self._rooms += 1
            return self._scorer.room((self._block, *images.shape[1:]))
        room = self._spare.get()
        self._raise()
        return room

    def _check_like(self, images: Images, block: Images) -> None:
        if images.shape[1:] != block.shape[1:] or images.dtype != block.dtype:
            raise AccuracyError(
                "images of another size or type than those before",
                got=f"{images.dtype} {images.shape}",
                expected=f"{block.dtype} {('B', *block.shape[1:])}",
            )

    def _hand_on(self) -> None:
        """Give what has come to the thread; waits while it is behind."""
        self._raise()
        assert self._filling is not None
        self._blocks.put((self._ids, self._digests, self._filling))
        self._ids, self._digests, self._filling = [], [], None

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        kept: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="keeper") as keeper:
            while (waiting := self._blocks.get()) is not None:
                ids, digests, block = waiting
                if self._failure is not None:
                    self._spare.put(block)  # so that nobody waits for it
                    continue
                try:
                    clip, features = self._scorer.score(block[: len(ids)], [self._captions[key] for key in ids])
                except BaseException as error:  # noqa: BLE001  raised again where the images come from
                    self._failure = error
                    self._spare.put(block)
                    continue
                if kept is not None:
                    kept.result()
                kept = keeper.submit(self._keep, Block(tuple(ids), tuple(digests), clip, features), block)

    def _keep(self, block: Block, images: Images) -> None:
        """Take in a scored block; its pictures are on the disk before its record is."""
        try:
            if self._failure is not None:
                return
            self.tally.add(block)
            if self._images is not None:
                self._images.see(block.ids, block.clip, images[: len(block.ids)])
            if self._writer is not None:
                self._writer.append(block)
        except BaseException as error:  # noqa: BLE001  raised again where the images come from
            self._failure = error
        finally:
            self._spare.put(images)


def _put(image: NDArray[np.uint8], place: NDArray[np.uint8]) -> str:
    """Copy an image to its place, C-contiguous; the hex SHA-256 of its bytes."""
    np.copyto(place, image)
    return hashlib.sha256(place.data).hexdigest()
