"""Takes the images of a LoadGen run in memory and has them scored while the next are drawn; in LoadGen's process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdxl_engine.accuracy.baseline import baseline_clip
from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.kept_images import IMAGES, WORST, KeptImages
from sdxl_engine.accuracy.placement import open_scorer
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import model_of
from sdxl_engine.run_captions import own_share
from sdxl_engine.run_header import run_facts, run_header
from sdxl_engine.scoring import open_record
from sdxl_engine.settings import RunSettings
from sdxl_engine.shards import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sdxl_engine.assets.captions import Caption
    from sdxl_engine.models.source import ModelSource


class LiveScoring:
    """A `Sink`: LoadGen gets and logs an image's SHA-256, or the image itself where a submission needs it.

    Args:
        collector: Scores.
        ids: Caption ids by index of the run.
        digests: Hex SHA-256 by id, of the images that an earlier part of the run has scored.
        scorer: Holds the collector's scorer open; closed at the end.
        log_images: Whether LoadGen gets the images.
    """

    def __init__(
        self,
        collector: Collector,
        ids: list[int],
        digests: Mapping[int, str],
        scorer: ExitStack,
        *,
        log_images: bool = False,
    ) -> None:
        self._collector, self._ids, self._scorer, self._log_images = collector, ids, scorer, log_images
        self.known = {row: _response(digests[key]) for row, key in enumerate(ids) if key in digests}

    def take(self, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Sink.take`."""
        digests = self._collector.take([self._ids[row] for row in indices.tolist()], images)
        return images if self._log_images else np.stack([_response(digest) for digest in digests])

    def finish(self) -> None:
        """Score what is left."""
        with self._scorer:
            self._collector.finish()


def live_scoring(settings: dict[str, Any], folder: str, *, batch_size: int) -> LiveScoring:
    """The sink of an accuracy run.

    Args:
        settings: `RunSettings.to_json()`; with `resume`, the record in `folder` is gone on with.
        folder: Where the run's record lies or goes: its log folder.
        batch_size: Of the image source: blocks are made of whole batches.

    Raises:
        UsageError: the record is of another run, or a shard's blocks would not be those of the whole run.
        SdxlError: see `open_scorer` and `read_record`.
    """
    run, log_dir = RunSettings.from_json(settings), Path(folder)
    if run.shard is not None and BLOCK % batch_size:
        raise UsageError(
            "with this batch size a shard would score other images together than one run does",
            got=f"batches of {batch_size} images, shard {run.shard}",
            expected=f"a divisor of {BLOCK}: captions are shared out, and images scored, {BLOCK} at a time",
            fix="take another batch size (a machine configuration's batch_size, --batch-size), or leave the shard out",
        )
    model = model_of(run)
    block = -(-BLOCK // batch_size) * batch_size
    captions = own_share(run, model)
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(model, run.metrics, run.metrics_device))
        header = run_header(run_facts(run, model), scorer.metric, block)
        earlier, writer = open_record(header, log_dir, log_dir if run.resume else None)
        collector = Collector(
            scorer,
            {caption.id: caption.text for caption in captions},
            block=block,
            writer=writer,
            record=earlier,
            images=_kept_images(run, model, log_dir, captions, earlier.clip if earlier is not None else {}),
        )
        ids, digests = [caption.id for caption in captions], earlier.digests if earlier is not None else {}
        return LiveScoring(collector, ids, digests, stack.pop_all(), log_images=run.responses == "images")


def _kept_images(
    run: RunSettings, model: ModelSource, log_dir: Path, captions: list[Caption], scored: Mapping[int, float]
) -> KeptImages | None:
    """What keeps images of the run: all, the worst against the baseline if there is one, or none."""
    if run.save_images == "none":
        return None
    baseline = baseline_clip(run, model, {caption.id: caption.text for caption in captions})
    return KeptImages(log_dir / IMAGES, WORST if run.save_images == "worst" else None, baseline, scored)


def _response(digest: str) -> NDArray[np.uint8]:
    """(32,) uint8: a hex SHA-256 as its bytes."""
    return np.frombuffer(bytes.fromhex(digest), np.uint8)
