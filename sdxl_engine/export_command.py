"""`sdxl-engine export`: a checkpoint's five networks as ONNX files, in the benchmark's folders."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.commands import Outcome
from sdxl_engine.engines.cache import built_at, check_replaceable
from sdxl_engine.engines.registry import ENGINES, resolve_engine
from sdxl_engine.models.source import model_of
from sdxl_engine.models.spec import read_spec

if TYPE_CHECKING:
    from sdxl_engine.settings import RunSettings

OUTPUT = Path("models/SDXL/onnx_models")
"""Below the build folder: where the benchmark looks for ONNX files."""

AUTO, DEFAULT = "auto", "fp16"


def add_export(
    subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser("export", parents=[shared], help="write the five networks as ONNX files")
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"where they go (default: build/{OUTPUT})")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run each network once by ONNX Runtime, on the CPU, and compare with PyTorch on --device (default: yes)",
    )


def export(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Export, and put the folder in its place once every network has passed its check; kept if it is there already."""
    model = model_of(settings)
    model.check_variant(settings.model_opt)
    model.verify()
    spec = read_spec(model.checkpoint)
    target = arguments.output or settings.build_dir / OUTPUT
    precision = DEFAULT if settings.precision == AUTO else settings.precision
    # Exports and checks with what this engine needs; for the error that says what is not installed.
    resolve_engine("onnxruntime")
    # Not before the options are checked: it imports torch.
    from sdxl_engine.export import exported
    from sdxl_engine.export.check import NetworkCheck, check_export

    exported.interfaces(spec, precision)
    check_replaceable(target, exported.WHAT)
    device = ENGINES["torch"].device(settings.device, source="--device") if arguments.check else None
    checks: list[NetworkCheck] = []

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def check(folder: Path) -> None:
        checks.extend(check_export(folder, model.checkpoint, spec, precision, tell, device, settings.model_opt))

    def build(folder: Path) -> None:
        exported.export_checkpoint(model.checkpoint, spec, precision, folder, tell, settings.model_opt)
        check(folder)

    built = built_at(target, exported.export_ingredients(model.checkpoint, precision, settings.model_opt), build)
    if not built:
        check(target)
    print(f"{model.name}: {'exported' if built else 'up to date'} in {precision}, in {target}")
    networks = [dataclasses.asdict(each) for each in checks]
    return Outcome(result={"output": target, "precision": precision, "built": built, "networks": networks})
