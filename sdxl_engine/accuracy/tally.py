"""Scores of a run from its blocks, in the order of the captions whatever order they were scored in."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.fid import Moments, frechet_distance
from sdxl_engine.accuracy.interval import clip_interval, fid_interval
from sdxl_engine.errors import AccuracyError
from sdxl_engine.results import Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from sdxl_engine.accuracy.fid import Statistics
    from sdxl_engine.accuracy.records import Block


class Tally:
    """CLIP score and FID of one run.

    What a run scores depends on its blocks alone, to the last bit: neither their order nor the process that
    scored them shows. Kept are each image's score and features, 8 KiB for the official networks.

    Args:
        ids: The ids that the run must have, in the order of the captions.

    Raises:
        AccuracyError: there are none.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = tuple(ids)
        if not self.ids:
            raise AccuracyError("there is nothing to score", got="no captions")
        self._wanted = frozenset(self.ids)
        self._clip: dict[int, float] = {}
        self._features: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        """How many images have been taken in."""
        return len(self._clip)

    def __contains__(self, key: int) -> bool:
        return key in self._clip

    def check_ids(self, ids: Sequence[int]) -> None:
        """Refuse ids that cannot be taken in.

        Raises:
            AccuracyError: an id is foreign, or comes a second time.
        """
        foreign = [key for key in ids if key not in self._wanted]
        if foreign:
            raise AccuracyError(
                "images of ids that are not in this run",
                got=first_of(foreign),
                expected=f"the ids of the run's {len(self.ids)} captions",
            )
        twice = [key for key, count in Counter(ids).items() if count > 1 or key in self._clip]
        if twice:
            raise AccuracyError("a second image for the same id", got=first_of(twice), expected="one image for each id")

    def add(self, block: Block) -> None:
        """Take in a block.

        Raises:
            AccuracyError: see `check_ids`; or its features are of another length than those before. Nothing of the
                block is taken in then.
        """
        self.check_ids(block.ids)
        dims = next((len(vector) for vector in self._features.values()), block.features.shape[1])
        if block.features.shape[1] != dims:
            raise AccuracyError("features of two networks", got=block.features.shape[1], expected=f"{dims} dimensions")
        self._clip.update(zip(block.ids, block.clip.tolist(), strict=True))
        self._features.update(zip(block.ids, block.features, strict=True))

    @property
    def per_id(self) -> dict[int, float]:
        """CLIP score of each id so far, in the order of the captions."""
        return {key: self._clip[key] for key in self.ids if key in self._clip}

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, D) features of the ids so far, in the order of the captions."""
        return np.stack([self._features[key] for key in self.ids if key in self._features])

    def scores(self, statistics: Statistics, variant: str, identity: dict[str, str]) -> Scores:
        """Mean CLIP score and FID; NaN if any image's score or features are.

        Args:
            statistics: Of the true images.
            variant: Of the metric.
            identity: Of the metric networks; `fid_rank` is added to it: `full: ...`, or `deficient: ...` where there
                are too few images for a covariance of full rank, one more than dimensions. FID of a deficient
                covariance is biased and compares with nothing but runs of the same count.

        Raises:
            AccuracyError: an id has no image yet, there is just one, or the statistics are of other features.
        """
        missing = [key for key in self.ids if key not in self._clip]
        if missing:
            raise AccuracyError(
                "the run is not complete",
                got=f"no image for {len(missing)} of {len(self.ids)} ids: {first_of(missing)}",
                expected="one image for each caption",
            )
        features = self.features
        count, dims = features.shape
        if len(statistics.mu) != dims:
            raise AccuracyError("the statistics are of other features", got=len(statistics.mu), expected=dims)
        moments = Moments(dims)
        for start in range(0, count, 512):
            moments.update(features[start : start + 512])
        clip = np.array(list(self.per_id.values()))
        rank = f"{'full' if count > dims else 'deficient'}: {count} images for {dims} dimensions"
        return Scores(
            # fsum rounds once, so that no order can show.
            clip=math.fsum(clip) / count,
            fid=frechet_distance(moments.mean, moments.covariance, statistics.mu, statistics.sigma),
            count=count,
            variant=variant,
            identity=identity | {"fid_rank": rank},
            clip_interval=clip_interval(clip),
            fid_interval=fid_interval(features, statistics),
        )


def first_of(ids: Iterable[int], limit: int = 8) -> str:
    """The ids as text, the first few of many."""
    listed = list(ids)
    return ", ".join(map(str, listed[:limit])) + (", ..." if len(listed) > limit else "")
