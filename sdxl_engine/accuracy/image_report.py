"""What the saved images of two runs say of them: PSNR and LPIPS to each other, or of both to a third run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.image_pairs import Distances, measure_distances, nearer
from sdxl_engine.accuracy.kept_images import IMAGES
from sdxl_engine.accuracy.lpips import load_lpips
from sdxl_engine.accuracy.paired import chance
from sdxl_engine.accuracy.run_images import saved_ids
from sdxl_engine.errors import AssetError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

METRICS = (("psnr", "PSNR", "{:.2f} dB", True), ("lpips", "LPIPS", "{:.4f}", False))
"""Field of `Distances`, name, form, and whether a higher value is nearer."""


@dataclass(frozen=True)
class ImageReport:
    """Distances of images.

    Args:
        lines: For the reader; empty where the two runs have no saved images in common.
        distances: By what is compared: `run to baseline`, or `run to reference` and `baseline to reference`.
    """

    lines: tuple[str, ...] = ()
    distances: dict[str, Distances] = field(default_factory=dict)


def report_images(
    run: Path | None, baseline: Path | None, ids: Iterable[int], reference: Path | None = None, *, lpips: bool = False
) -> ImageReport:
    """Measure and describe.

    Args:
        run: Log folder of the run, with its pictures in `images/`; None has none.
        baseline: Of the baseline.
        ids: Captions of both; those whose picture is not in every folder are left out.
        reference: Log folder of a third run that both are measured to, which gives the difference a direction.
        lpips: Compute LPIPS too, where its network is here; otherwise a line says what is missing.

    Raises:
        AssetError: a picture is damaged or of another size than the first one.
    """
    common = list(ids)
    for folder in (run, baseline) if reference is None else (run, baseline, reference):
        common = saved_ids(folder, common)
    if run is None or baseline is None or not common:
        return ImageReport()
    network, lines = None, []
    if lpips:
        try:
            network = load_lpips()
        except (AssetError, UnavailableError) as error:
            parts = error.parts
            lines.append(f"LPIPS: not computed: {parts['got']} ({parts['fix']})")

    def measured(first: Path, second: Path) -> Distances:
        return measure_distances(first / IMAGES, second / IMAGES, common, network)

    if reference is None:
        between = measured(run, baseline)
        return ImageReport((*_to_baseline(between), *lines), {"run to baseline": between})
    ours, theirs = measured(run, reference), measured(baseline, reference)
    distances = {"run to reference": ours, "baseline to reference": theirs}
    return ImageReport((*_to_reference(ours, theirs), *lines), distances)


def _to_baseline(distances: Distances) -> list[str]:
    """Median and worst of the images that are not equal; an infinite PSNR would hide the others."""
    differ = [key for key, value in distances.psnr.items() if math.isfinite(value)]
    if not differ:
        return [f"PSNR: all {len(distances.psnr)} kept images equal the baseline's"]
    lines = []
    for attribute, name, form, higher_is_nearer in METRICS:
        values = [of[key] for key in differ if key in (of := getattr(distances, attribute))]
        if values:
            worst = (min if higher_is_nearer else max)(values)
            subject = f"{name} of the {len(values)} kept images that differ from the baseline's"
            lines.append(f"{subject}: median {form.format(median(values))}, worst {form.format(worst)}")
    return lines


def _to_reference(run: Distances, baseline: Distances) -> list[str]:
    """Both medians, and a sign test of which run is nearer to the reference."""
    lines = []
    for attribute, name, form, higher_is_nearer in METRICS:
        ours, theirs = getattr(run, attribute), getattr(baseline, attribute)
        if ours:
            sign = nearer(ours, theirs)
            ahead, behind = (sign.higher, sign.lower) if higher_is_nearer else (sign.lower, sign.higher)
            medians = [form.format(median(values.values())) for values in (ours, theirs)]
            subject = f"{name} of {len(ours)} kept images to the reference's"
            split = f"nearer in {ahead}, further in {behind}, sign test {chance(sign.p)}"
            lines.append(f"{subject}: median {medians[0]}, baseline {medians[1]}; {split}")
    return lines
