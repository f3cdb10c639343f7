"""What the saved images of two runs say of them: PSNR and LPIPS to each other, or of both to a third run."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.image_pairs import Distances, measure_distances, nearer
from sdxl_engine.accuracy.lpips import load_lpips
from sdxl_engine.accuracy.paired import chance
from sdxl_engine.accuracy.run_images import IMAGES, saved_ids
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
        distances = {"run to baseline": measured(run, baseline)}
    else:
        distances = {
            "run to reference": measured(run, reference),
            "baseline to reference": measured(baseline, reference),
        }
    return ImageReport((*_lines(distances), *lines), distances)


def _lines(distances: dict[str, Distances]) -> list[str]:
    lines = []
    for attribute, name, form, higher_is_nearer in METRICS:
        values: list[dict[int, float]] = [getattr(entry, attribute) for entry in distances.values()]
        if not values[0]:
            continue
        medians = [form.format(median(entry.values())) for entry in values]
        if len(values) == 1:
            worst = (min if higher_is_nearer else max)(values[0].values())
            lines.append(
                f"{name} of {len(values[0])} images to the baseline's: median {medians[0]}, worst {form.format(worst)}"
            )
            continue
        sign = nearer(*values)
        ahead, behind = (sign.higher, sign.lower) if higher_is_nearer else (sign.lower, sign.higher)
        lines.append(
            f"{name} of {len(values[0])} images to the reference's: median {medians[0]}, baseline {medians[1]}; "
            f"nearer in {ahead}, further in {behind}, sign test {chance(sign.p)}"
        )
    return lines
