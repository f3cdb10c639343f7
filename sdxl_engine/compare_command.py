"""`sdxl-engine compare`: two scored runs, prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import captions_sha256, read_captions
from sdxl_engine.commands import Outcome
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import model_of

if TYPE_CHECKING:
    import argparse

    from sdxl_engine.accuracy.baseline import ScoredRun
    from sdxl_engine.settings import RunSettings


def add_compare(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser(
        "compare", parents=[shared], help="which prompts lost CLIP score against another run, in a few or broadly"
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="log folder of an accuracy run")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="that of the baseline (default: the model's own)")
    parser.add_argument(
        "--reference", type=Path, metavar="DIR", help="that of a third run: PSNR and LPIPS of both are to its images"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the picture goes (default: the run's folder)")


def compare(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Print the diagnosis and draw the worst prompts; a report, so it ends well whatever it finds."""
    from sdxl_engine.accuracy.baseline import scored_run, stored_baseline
    from sdxl_engine.accuracy.diagnosis import diagnose

    model = model_of(settings)
    run = scored_run(arguments.run)
    captions = _captions(model.captions, run)
    baseline = scored_run(arguments.baseline) if arguments.baseline else stored_baseline(model, captions)
    output = arguments.output or (arguments.run if arguments.run.is_dir() else arguments.run.parent)
    diagnosis = diagnose(run, baseline, captions, output, arguments.reference, lpips=True)
    print(diagnosis.text)
    return Outcome(result=diagnosis.to_json(captions))


def _captions(path: Path, run: ScoredRun) -> dict[int, str]:
    """The prompts of a run by caption id.

    Raises:
        UsageError: the captions file is not the one that the run was about.
    """
    facts, rows = run.header["run"], read_captions(path)
    if captions_sha256(rows[: facts["captions"]]) != facts["captions_sha256"]:
        raise UsageError(
            "the run is of other captions",
            got=f"captions_sha256 {facts['captions_sha256']} in {run.name}",
            expected=f"the first {facts['captions']} of {path}",
            fix="name the model and the captions that the run had: --model, --captions",
        )
    return {row.id: row.text for row in rows if row.id in run.clip}
