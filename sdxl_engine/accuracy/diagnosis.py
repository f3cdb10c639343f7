"""Why a gate failed: which prompts lost CLIP score against a baseline, whether a few or all, and how they look."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.accuracy.baseline import scored_run, stored_baseline
from sdxl_engine.accuracy.compare import compare
from sdxl_engine.accuracy.contact_sheet import SheetRow, worst_picture
from sdxl_engine.accuracy.diagnosis_text import figures, headline, sheet_figures, table, unpaired
from sdxl_engine.accuracy.image_pairs import psnr
from sdxl_engine.accuracy.image_report import ImageReport, report_images
from sdxl_engine.accuracy.run_images import find_images, true_renders
from sdxl_engine.errors import SdxlError
from sdxl_engine.models.source import SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sdxl_engine.accuracy.baseline import ScoredRun
    from sdxl_engine.accuracy.compare import Comparison, Pair
    from sdxl_engine.models.source import ModelSource

SHOWN = 8
"""Prompts in the table and in the picture."""

PICTURE = "sdxl_diagnosis.png"


@dataclass(frozen=True)
class Diagnosis:
    """A comparison told.

    Args:
        text: About 15 lines for a terminal.
        comparison: What it rests on.
        images: Distances of the saved images; empty without them.
        picture: The worst prompts' images, where any of the run's was found.
    """

    text: str
    comparison: Comparison
    images: ImageReport
    picture: Path | None

    def to_json(self, captions: Mapping[int, str]) -> dict[str, Any]:
        """Summary, and every pair with its differences."""
        summary = dataclasses.asdict(self.comparison)
        del summary["pairs"]
        pairs = []
        for pair in self.comparison.pairs:
            entry: dict[str, Any] = {
                "id": pair.id,
                "caption": captions.get(pair.id),
                "clip": {"run": pair.run, "baseline": pair.baseline, "delta": pair.delta},
            }
            for name, distances in self.images.distances.items():
                for metric in ("psnr", "lpips"):
                    value = getattr(distances, metric).get(pair.id)
                    if value is not None:
                        entry.setdefault(metric, {})[name] = value
            pairs.append(entry)
        return {"summary": summary, "pairs": pairs, "picture": self.picture}


def diagnose(
    run: ScoredRun,
    baseline: ScoredRun,
    captions: Mapping[int, str],
    output: Path,
    reference: Path | None = None,
    *,
    lpips: bool = False,
) -> Diagnosis:
    """Compare two runs, tell it, and draw the worst prompts.

    Args:
        run: The run in question.
        baseline: What it is held against.
        captions: Prompts by caption id, for the reader.
        output: Folder that the picture goes to, as `sdxl_diagnosis.png`.
        reference: See `report_images`.
        lpips: See `report_images`.

    Raises:
        AccuracyError: the two do not compare; see `compare`.
        AssetError: an image or a log is damaged.
    """
    comparison = compare(run, baseline)
    images = report_images(run.folder, baseline.folder, (pair.id for pair in comparison.pairs), reference, lpips=lpips)
    worst = comparison.worst(SHOWN)
    picture, distances, note = _draw(run, baseline, worst, captions, output / PICTURE)
    lines = [f"against {baseline.name}", *figures(comparison), *images.lines]
    if apart := unpaired(comparison):
        lines.insert(1, apart)
    if worst:
        lines += [*table(worst, captions, distances), note]
    text = "\n  ".join([f"diagnosis: {headline(comparison)}", *lines])
    return Diagnosis(text, comparison, images, picture)


def explain(run_dir: Path, baseline: Path | None, model: ModelSource, captions: Mapping[int, str], output: Path) -> str:
    """What to add to the message of a gate that failed; never raises, so that the gate's own message stands.

    Args:
        run_dir: Log folder of the run, with its record.
        baseline: Log folder or record of the baseline; None takes the one that comes with the model.
        model: Of the run.
        captions: Those of the run, by id.
        output: Folder for the picture.
    """
    try:
        against = scored_run(baseline) if baseline is not None else stored_baseline(model, captions)
        return diagnose(scored_run(run_dir), against, captions, output).text
    except SdxlError as error:
        told = "; ".join([error.what, *(f"{name}: {text}" for name, text in error.parts.items())])
    except Exception as error:  # noqa: BLE001  a failure here must not take the gate's place
        told = f"{type(error).__name__}: {error}"
    return "no diagnosis: " + " ".join(told.split())


def _draw(
    run: ScoredRun, baseline: ScoredRun, worst: Sequence[Pair], captions: Mapping[int, str], path: Path
) -> tuple[Path | None, dict[int, float], str]:
    """Draw the worst prompts: the picture, PSNR by caption id where both images were found, and a line on it."""
    ids = [pair.id for pair in worst]
    ours = find_images(run.folder, _only(run.digests, ids))
    theirs = find_images(baseline.folder, _only(baseline.digests, ids))
    if not ours:
        return None, {}, "picture: none, the run's images were not kept (--sdxl-save-images=worst keeps them)"
    distances = {
        key: psnr(ours[key], theirs[key])
        for key in ids
        if key in ours and key in theirs and ours[key].shape == theirs[key].shape
    }
    # Only captions of the embedded model are sentences of its grammar.
    of_shapes = run.header["metric"].get("variant") == SHAPES
    renders = (
        true_renders({key: captions[key] for key in ids if key in captions and key not in theirs}) if of_shapes else {}
    )
    rows = [
        SheetRow(
            captions.get(pair.id, ""),
            sheet_figures(pair, distances.get(pair.id)),
            left=theirs.get(pair.id, renders.get(pair.id)),
            left_name="true render" if pair.id in renders else "baseline",
            right=ours.get(pair.id),
        )
        for pair in worst
    ]
    worst_picture(path, rows)
    beside = "the captions' true renders: the baseline has no images" if renders else "the baseline's"
    return path, distances, f"picture: {path} (run beside {beside})"


def _only(digests: Mapping[int, str], ids: Sequence[int]) -> dict[int, str]:
    return {key: digests[key] for key in ids if key in digests}
