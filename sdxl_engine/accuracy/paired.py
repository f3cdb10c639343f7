"""Statistics of paired differences, one per prompt: a sign test, and whether a loss is broad or in a few prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal

from sdxl_engine.errors import AccuracyError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNIFICANT = 0.05
"""A sign test's p below this is taken as a difference that is not chance."""

TOLERATED = 0.001
"""Of the baseline's mean score: a mean loss above it counts whatever the sign test says, since a sign test sees no
difference between a prompt that lost 0.01 and one that lost 99. Half of what MLPerf's CLIP range allows (0.2 %)."""

FEW_CARRY = 0.8
FEW_PROMPTS = 0.2
"""A loss is in a few prompts if at most a fifth of all prompts carry four fifths of it."""

WORST = 0.05
"""Share of the prompts, the worst ones, whose part of the loss is told."""


@dataclass(frozen=True)
class SignTest:
    """How many of the differences are below 0, above it and equal to it, and how likely such a split is by chance.

    Args:
        lower: Below 0.
        higher: Above 0.
        equal: Within the tie.
        p: Two-sided and exact: the probability of a split at least as uneven where either sign is as likely. Ties
            are dropped. 1 where all are ties.
    """

    lower: int
    higher: int
    equal: int
    p: float


@dataclass(frozen=True)
class Paired:
    """Differences of pairs, run minus baseline.

    Args:
        count: How many.
        mean: Their mean.
        median: Their median.
        lowest: The smallest.
        highest: The largest.
        sign: The test of their signs.
    """

    count: int
    mean: float
    median: float
    lowest: float
    highest: float
    sign: SignTest


@dataclass(frozen=True)
class Loss:
    """Where a loss lies.

    Args:
        kind: `none`: no loss, or none beyond chance; `few`: in a few prompts; `broad`: in most, or in many.
        prompts: For `few`, how many prompts those are; otherwise how many lost.
        share: Of the sum of all losses, what those prompts carry, 0 to 1.
        worst_share: Of the sum of all losses, what the worst 5 % of the prompts carry, 0 to 1.
    """

    kind: Literal["none", "few", "broad"]
    prompts: int
    share: float
    worst_share: float


def sign_test(differences: Sequence[float], tie: float = 0.0) -> SignTest:
    """The two-sided sign test.

    Args:
        differences: Of the pairs; infinities have a sign, NaN has none and must not be among them.
        tie: Differences of at most this size count as equal.

    Source: Dixon and Mood, "The Statistical Sign Test", JASA 41, 1946.
    """
    lower = sum(value < -tie for value in differences)
    higher = sum(value > tie for value in differences)
    n = lower + higher
    # Whole numbers throughout: binomials of thousands of pairs exceed a float's range.
    tail = sum(math.comb(n, heads) for heads in range(min(lower, higher) + 1))
    return SignTest(lower, higher, len(differences) - n, min(1.0, 2 * tail / 2**n))


def chance(p: float) -> str:
    """A probability for the reader."""
    return f"p = {p:.2g}" if p >= 1e-6 else "p < 1e-6"


def summarise(differences: Sequence[float], tie: float = 0.0) -> Paired:
    """Mean, median, extremes and sign test.

    Args:
        differences: Of the pairs, run minus baseline; finite.
        tie: See `sign_test`.

    Raises:
        AccuracyError: there are none.
    """
    if not differences:
        raise AccuracyError("there are no pairs to compare", got="0 differences", expected="1 or more")
    return Paired(
        count=len(differences),
        mean=fmean(differences),
        median=median(differences),
        lowest=min(differences),
        highest=max(differences),
        sign=sign_test(differences, tie),
    )


def locate_loss(differences: Sequence[float], baseline_mean: float, tie: float = 0.0) -> Loss:
    """Whether scores fell, and if so, in a few prompts or broadly.

    There is a loss if the mean fell and either most prompts that moved went down, more than chance would have it
    (sign test, p below 0.05), or the mean fell by more than 0.1 % of the baseline's. The loss is in a few prompts if
    the fewest prompts that carry 80 % of it are at most 20 % of all; to those are counted all that lost at least half
    as much as the least of them, so that equal faults are not cut in two. Otherwise it is broad.

    Args:
        differences: Of the pairs, run minus baseline; finite; higher scores are better.
        baseline_mean: Mean score of the baseline.
        tie: Differences of at most this size are neither loss nor gain.

    Raises:
        AccuracyError: there are no differences.
    """
    paired = summarise(differences, tie)
    losses = sorted((-value for value in differences if value < -tie), reverse=True)
    total = math.fsum(losses)
    if not losses:
        return Loss("none", 0, 0.0, 0.0)
    worst_share = math.fsum(losses[: math.ceil(WORST * paired.count)]) / total
    falling = paired.sign.lower > paired.sign.higher and paired.sign.p < SIGNIFICANT
    if paired.mean >= 0 or not (falling or -paired.mean > TOLERATED * abs(baseline_mean)):
        return Loss("none", len(losses), 1.0, worst_share)
    carried, fewest = 0.0, 0
    while carried < FEW_CARRY * total:
        carried += losses[fewest]
        fewest += 1
    if fewest > FEW_PROMPTS * paired.count:
        return Loss("broad", len(losses), 1.0, worst_share)
    few = [loss for loss in losses if loss >= losses[fewest - 1] / 2]
    return Loss("few", len(few), math.fsum(few) / total, worst_share)
