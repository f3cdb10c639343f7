"""Ranges around the scores that NVIDIA published for its two open variants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.accuracy.ranges import OFFICIAL, derive

if TYPE_CHECKING:
    from sdxl_engine.results import AccuracyRanges


def _published(model_opt: str, clip: float, fid: float) -> AccuracyRanges:
    origin = (
        f"NVIDIA's {model_opt} in the open division of MLPerf Inference v4.0, one H100 "
        f"(mlcommons/inference_results_v4.0, open/NVIDIA): CLIP {clip}, FID {fid}; "
        "tolerance as wide as the closed division's, +-0.2 % and +-2 %"
    )
    return derive("published", clip, fid, 0.2, 2, OFFICIAL.count, origin, variant=OFFICIAL.variant)


PUBLISHED = {
    "DeepCache": _published("DeepCache", 31.713050620, 23.604639465),
    "DeepCachePruned": _published("DeepCachePruned", 32.16486, 29.18939),
}
"""By variant. That of DeepCachePruned lies outside the official range."""
