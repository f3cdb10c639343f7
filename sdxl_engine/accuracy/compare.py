"""Two scored runs of the same captions, compared prompt by prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from sdxl_engine.accuracy.paired import Loss, Paired, locate_loss, summarise
from sdxl_engine.errors import AccuracyError

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIP_TIE = 1e-4
"""CLIP scores no further apart count as equal: stored baselines have four decimals."""


class Scored(Protocol):
    """A side of the comparison: `records.Record` or `baseline.ScoredRun`."""

    @property
    def header(self) -> Mapping[str, Any]:
        """With `metric`, and of a run's own record `run`; see `sdxl_engine.run_header`."""

    @property
    def clip(self) -> Mapping[int, float]:
        """CLIP score by caption id."""

    @property
    def digests(self) -> Mapping[int, str]:
        """Hex SHA-256 of the image by caption id; empty where not kept."""


@dataclass(frozen=True)
class Pair:
    """One prompt in both runs.

    Args:
        id: The caption's.
        run: CLIP score in the run.
        baseline: CLIP score in the baseline.
    """

    id: int
    run: float
    baseline: float

    @property
    def delta(self) -> float:
        """Run minus baseline; NaN if either has no score."""
        return self.run - self.baseline


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and how far apart they are.

    Args:
        pairs: Every caption id of both, in the order of the run.
        only_run: How many ids are in the run alone.
        only_baseline: How many ids are in the baseline alone.
        clip: Statistics of the pairs' differences that are numbers.
        run_mean: Mean CLIP score of those pairs in the run.
        baseline_mean: Mean CLIP score of those pairs in the baseline.
        loss: Where the loss lies.
        unscored: Pairs whose image in the run has no CLIP score (NaN); in no statistic.
        hashed: Pairs whose images' digests are known in both.
        identical: How many of those have the same image, bit by bit.
        moved: How many of those have the baseline's image of another caption.
    """

    pairs: tuple[Pair, ...]
    only_run: int
    only_baseline: int
    clip: Paired
    run_mean: float
    baseline_mean: float
    loss: Loss
    unscored: int
    hashed: int
    identical: int
    moved: int

    def worst(self, count: int) -> list[Pair]:
        """The pairs that lost most, first those without a score in the run; prompts that did not lose are not here."""
        lost = [pair for pair in self.pairs if math.isnan(pair.run) or pair.delta < -CLIP_TIE]
        return sorted(lost, key=lambda pair: -math.inf if math.isnan(pair.run) else pair.delta)[:count]


def compare(run: Scored, baseline: Scored) -> Comparison:
    """Compare a run with a baseline.

    Raises:
        AccuracyError: they were scored with different metrics, or have no scored caption in common.
    """
    check_comparable(run.header, baseline.header)
    ours, theirs = dict(run.clip), dict(baseline.clip)
    pairs = tuple(Pair(key, score, theirs[key]) for key, score in ours.items() if key in theirs)
    scored = [pair for pair in pairs if math.isfinite(pair.delta)]
    if not scored:
        raise AccuracyError(
            "the runs cannot be compared",
            got=f"{len(pairs)} captions in both, none with a CLIP score in both",
            expected="runs of the same captions",
        )
    deltas = [pair.delta for pair in scored]
    baseline_mean = fmean(pair.baseline for pair in scored)
    return Comparison(
        pairs=pairs,
        only_run=len(ours) - len(pairs),
        only_baseline=len(theirs) - len(pairs),
        clip=summarise(deltas, CLIP_TIE),
        run_mean=fmean(pair.run for pair in scored),
        baseline_mean=baseline_mean,
        loss=locate_loss(deltas, baseline_mean, CLIP_TIE),
        unscored=sum(math.isnan(pair.run) for pair in pairs),
        **_same_images(dict(run.digests), dict(baseline.digests)),
    )


def check_comparable(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> None:
    """Refuse scores of different metrics, and of different captions under the same ids.

    Args:
        run: Header of the run's record.
        baseline: Header of the baseline's.

    Raises:
        AccuracyError: the variants of the metric differ, or what begins with `clip_` in its identity: weights,
            configuration, tokenizer, activation, resize. Or the captions differ, which shows where both runs had the
            same count of them. Names the first difference.
    """
    ours, theirs = _clip_metric(run), _clip_metric(baseline)
    for name in sorted(ours.keys() | theirs.keys(), key=lambda name: (name != "variant", name)):
        got, expected = ours.get(name), theirs.get(name)
        if got != expected:
            raise AccuracyError(
                f"the scores do not compare: {name} of the metric differs",
                got=f"{got or 'not said'} in the run",
                expected=f"{expected or 'not said'}, as in the baseline",
                fix="score both with the same metric networks",
            )
    ours, theirs = run.get("run") or {}, baseline.get("run") or {}
    digest = "captions_sha256"
    if ours.get("captions") == theirs.get("captions") and ours.get(digest) != theirs.get(digest):
        raise AccuracyError(
            "the scores do not compare: they are of other captions",
            got=f"{digest} {ours.get(digest)} in the run",
            expected=f"{theirs.get(digest)}, as in the baseline",
        )


def _clip_metric(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the CLIP score depends on."""
    metric = header.get("metric") or {}
    return {name: value for name, value in metric.items() if name == "variant" or name.startswith("clip_")}


def _same_images(run: Mapping[int, str], baseline: Mapping[int, str]) -> dict[str, int]:
    hashed = [key for key in run if key in baseline]
    identical = sum(run[key] == baseline[key] for key in hashed)
    known = {baseline[key] for key in baseline}
    moved = sum(run[key] != baseline[key] and run[key] in known for key in hashed)
    return {"hashed": len(hashed), "identical": identical, "moved": moved}
