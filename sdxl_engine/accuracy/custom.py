"""Ranges of the user's own: two limits for each score, or a file that holds ranges for several counts of captions."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.ranges import ranges_from_dict
from sdxl_engine.errors import UsageError
from sdxl_engine.files import read_json
from sdxl_engine.results import AccuracyRanges, Range

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.settings import RunSettings

CUSTOM = "custom"
_ANY = Range(-math.inf, math.inf)


def parse_range(text: str, *, source: str = "range") -> Range:
    """`LO,HI` as a range; an end that is left out is open.

    Args:
        text: For example `31.5,31.9`, `31.5,` or `,24`.
        source: Where it came from, for the message.

    Raises:
        UsageError: it is not that, or LO is above HI.
    """
    ends = text.split(",")
    try:
        limits = [float(end) for end in ends if end.strip()]
    except ValueError:
        limits = []
    if len(ends) != 2 or not limits or not all(map(math.isfinite, limits)) or limits != sorted(limits):
        raise UsageError(
            "a range is not two limits",
            got=repr(text),
            expected="LO,HI with LO not above HI; one of them may be left out: 31.5, or ,24",
            source=source,
        )
    lower, upper = ends
    return Range(float(lower) if lower.strip() else -math.inf, float(upper) if upper.strip() else math.inf)


def custom_ranges(settings: RunSettings, variant: str, count: int) -> AccuracyRanges:
    """The ranges that the settings ask for.

    Args:
        settings: `clip_range` and `fid_range`, of which the one that is left out is not judged, or `ranges`.
        variant: The metric variant of the run.
        count: Its count of captions.

    Raises:
        UsageError: a range is malformed, or the file has no ranges for the run.
        AssetError: the file is missing or malformed.
    """
    if settings.ranges is not None:
        return _from_file(settings.ranges, variant, count)
    clip, fid = (_ANY if text is None else parse_range(text) for text in (settings.clip_range, settings.fid_range))
    said = [f"{name} {_in_words(limits)}" for name, limits in (("CLIP", clip), ("FID", fid)) if limits.limited]
    return AccuracyRanges(CUSTOM, clip, fid, count, ", ".join(said), variant)


def _in_words(limits: Range) -> str:
    if math.isinf(limits.upper):
        return f"at least {limits.lower}"
    return f"at most {limits.upper}" if math.isinf(limits.lower) else f"{limits.lower} to {limits.upper}"


def _from_file(path: Path, variant: str, count: int) -> AccuracyRanges:
    """The one entry of a file that holds for a run, under the name of this gate: a file cannot make it official."""
    content = read_json(path, "the file of ranges")
    entries = content["ranges"] if isinstance(content, dict) and isinstance(content.get("ranges"), list) else [content]
    found = [ranges_from_dict(entry, path) for entry in entries]
    fitting = [ranges for ranges in found if (ranges.count, ranges.variant) == (count, variant)]
    if len(fitting) != 1:
        raise UsageError(
            "the file has not one entry of ranges for this run",
            got=", ".join(f"{ranges.name} ({ranges.count} captions, {ranges.variant})" for ranges in found) or "none",
            expected=f"one for {count} captions and the metric variant {variant}",
            source=path,
        )
    return dataclasses.replace(fitting[0], name=CUSTOM, origin=f"{fitting[0].name} in {path}: {fitting[0].origin}")
