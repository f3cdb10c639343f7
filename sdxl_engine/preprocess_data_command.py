"""`sdxl-engine preprocess-data`: captions and initial latent as the arrays that the benchmark's harness reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import first_captions, read_captions
from sdxl_engine.commands import Outcome
from sdxl_engine.engines.cache import MANIFEST, built_at, check_replaceable
from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json
from sdxl_engine.models.source import model_of
from sdxl_engine.models.spec import read_spec

if TYPE_CHECKING:
    import argparse

    from sdxl_engine.settings import RunSettings

OUTPUT = Path("preprocessed_data/coco2014-tokenized-sdxl/5k_dataset_final")
"""Below the build folder: where the benchmark's harness looks."""


def add_preprocess_data(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser(
        "preprocess-data", parents=[shared], help="write tokens and latent as the benchmark's harness reads them"
    )
    parser.add_argument("--latents", type=Path, metavar="FILE", help="initial latent in place of the model's own")
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"where they go (default: build/{OUTPUT})")


def preprocess_data(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Tokenise every caption, or the first `--samples`; the folder appears when it is complete."""
    began = time.monotonic()
    model = model_of(settings)
    latent = arguments.latents or model.latent
    target = arguments.output or settings.build_dir / OUTPUT
    captions = first_captions(model.captions, settings.samples) if settings.samples else read_captions(model.captions)
    if not latent.is_file():
        raise AssetError("the initial latent is missing", expected="latents.npy", source=latent, fix="--latents FILE")
    spec = read_spec(model.checkpoint)
    # Not before the inputs are found: it imports torch.
    from sdxl_engine.assets import preprocessed

    check_replaceable(target, preprocessed.WHAT)
    built = built_at(
        target,
        preprocessed.ingredients(model.checkpoint, model.captions, len(captions), latent),
        lambda folder: preprocessed.write_preprocessed(folder, model.checkpoint, captions, latent, spec),
    )
    seconds = time.monotonic() - began
    state = "written" if built else "up to date"
    print(f"{model.name}: {len(captions)} captions {state} in {target} after {seconds:.1f} s")
    digests = read_json(target / MANIFEST, "the manifest")["sha256"]
    return Outcome(
        result={"output": target, "captions": len(captions), "built": built, "seconds": seconds, "sha256": digests}
    )
