"""The ranges that a run's scores are judged by, and the benchmark's own line that tells the verdict."""

from __future__ import annotations

import math
from typing import Any

from sdxl_engine.errors import AssetError
from sdxl_engine.results import AccuracyRanges, Range, Scores, Verdict

OFFICIAL = AccuracyRanges(
    name="official",
    clip=Range(31.68631873, 31.81331801),
    fid=Range(23.01085758, 23.95007626),
    count=5000,
    origin="MLPerf Inference closed division: fp32 reference CLIP 31.74981837 +-0.2 %, FID 23.48046692 +-2 %",
    variant="mlperf",
)
"""The closed division's ranges, the same from v4.0 to v6.1; both ends belong to them, at full precision."""


def derive(
    name: str,
    reference_clip: float,
    reference_fid: float,
    clip_percent: float,
    fid_percent: float,
    count: int,
    origin: str,
    *,
    variant: str = "shapes",
) -> AccuracyRanges:
    """Ranges as MLPerf derived its own: a percentage each way from the fp32 NoOpt reference's scores.

    Args:
        name: What the gate is called.
        reference_clip: CLIP score of the reference on the same captions; above 0.
        reference_fid: FID of the reference on the same captions; above 0.
        clip_percent: Width to each side, percent of `reference_clip`.
        fid_percent: Width to each side, percent of `reference_fid`.
        count: How many captions the ranges hold for.
        origin: Where the reference's scores come from, for the reader.
        variant: The metric networks that gave the reference's scores.
    """
    return AccuracyRanges(
        name=name,
        clip=_around(reference_clip, clip_percent),
        fid=_around(reference_fid, fid_percent),
        count=count,
        origin=origin,
        variant=variant,
    )


def ranges_to_dict(ranges: AccuracyRanges) -> dict[str, Any]:
    """As JSON carries it; `ranges_from_dict` gives the same ranges back, to the last bit."""
    return {
        "name": ranges.name,
        "variant": ranges.variant,
        "count": ranges.count,
        "clip": [ranges.clip.lower, ranges.clip.upper],
        "fid": [ranges.fid.lower, ranges.fid.upper],
        "origin": ranges.origin,
    }


def ranges_from_dict(value: Any, source: object = "accuracy ranges") -> AccuracyRanges:
    """Ranges from what `ranges_to_dict` made.

    Args:
        value: A decoded JSON object.
        source: Where it was read from, for the error.

    Raises:
        AssetError: a key is missing, or a value is of another type, not finite, or out of order.
    """
    try:
        limits = [float(limit) for key in ("clip", "fid") for limit in value[key]]
        clip_lower, clip_upper, fid_lower, fid_upper = limits
        ranges = AccuracyRanges(
            name=str(value["name"]),
            clip=Range(clip_lower, clip_upper),
            fid=Range(fid_lower, fid_upper),
            count=int(value["count"]),
            origin=str(value["origin"]),
            variant=str(value["variant"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(repr(error), source) from None
    if not all(map(math.isfinite, limits)) or clip_lower > clip_upper or fid_lower > fid_upper:
        raise _malformed(f"limits {limits}", source)
    return ranges


def obstacle(scores: Scores, ranges: AccuracyRanges) -> str:
    """Why these ranges say nothing of these scores; empty where they do."""
    if scores.variant != ranges.variant:
        return f"scores of variant {scores.variant!r}; the {ranges.name} ranges hold for {ranges.variant!r}"
    if scores.count != ranges.count:
        if ranges.name == OFFICIAL.name:
            return f"{scores.count} of {ranges.count} captions: not an official score"
        return f"{scores.count} captions; the {ranges.name} ranges hold for {ranges.count}"
    rank, _, sizes = scores.identity.get("fid_rank", "").partition(": ")
    if rank == "deficient" and ranges.fid.limited:
        return f"FID of {sizes} judges nothing: it takes more images than dimensions"
    return ""


def judge(scores: Scores, ranges: AccuracyRanges) -> Verdict:
    """Whether both scores lie in their ranges, unrounded, both ends inclusive.

    Ranges say nothing of another metric variant or count of captions, nor of the FID of no more images than features;
    there `passed` is None and the line claims no pass. A score that is not finite fails whatever the ranges hold for.
    """
    return _verdict(scores, ranges, obstacle(scores, ranges))


def unjudged(scores: Scores, reason: str) -> Verdict:
    """The verdict where there are no ranges: None for `reason`, but False if a score is not finite."""
    return _verdict(scores, None, reason)


def _verdict(scores: Scores, ranges: AccuracyRanges | None, reason: str) -> Verdict:
    metrics = (
        ("CLIP_SCORE", scores.clip, ranges.clip if ranges else None),
        ("FID_SCORE", scores.fid, ranges.fid if ranges else None),
    )
    line = "accuracy: " + " | ".join(_part(name, score, None if reason else valid) for name, score, valid in metrics)
    broken = [name for name, score, _ in metrics if not math.isfinite(score)]
    if broken:
        return Verdict(passed=False, line=line, reason=f"not finite: {', '.join(broken)}")
    if ranges is None or reason:
        return Verdict(passed=None, line=line, reason=reason)
    outside = [name for name, score, valid in metrics if valid is None or score not in valid]
    if outside:
        return Verdict(passed=False, line=line, reason=f"outside {ranges.name} range: {', '.join(outside)}")
    return Verdict(passed=True, line=line)


def _part(name: str, score: float, valid: Range | None) -> str:
    """One score's part of the benchmark's line; without its range where that does not apply."""
    if valid is None or not valid.limited:
        return f"[{'NOT JUDGED' if math.isfinite(score) else 'FAILED'}] {name}: {score:.3f}"
    verdict = "PASSED" if score in valid else "FAILED"
    # The benchmark prints two spaces before the upper limit.
    return f"[{verdict}] {name}: {score:.3f} (Valid Range=[{valid.lower:.3f},  {valid.upper:.3f}])"


def _around(reference: float, percent: float) -> Range:
    return Range(reference * (1 - percent / 100), reference * (1 + percent / 100))


def _malformed(got: str, source: object) -> AssetError:
    expected = "name, variant, count, origin, and clip and fid as [lower, upper]"
    return AssetError("accuracy ranges are malformed", got=got, expected=expected, source=source)
