"""The command `sdxl-engine`: the plugin's runs without pytest, and their single steps."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine import __version__, commands
from sdxl_engine.compare_command import add_compare, compare
from sdxl_engine.diff_command import add_diff, diff
from sdxl_engine.distill_command import add_distill, distill
from sdxl_engine.download_command import add_downloads, download_data, download_model
from sdxl_engine.errors import SdxlError
from sdxl_engine.export_command import add_export, export
from sdxl_engine.generate_engines_command import add_generate_engines, generate_engines
from sdxl_engine.preprocess_data_command import add_preprocess_data, preprocess_data
from sdxl_engine.prune_command import add_prune, prune
from sdxl_engine.settings import (
    DEVICES,
    GATES,
    GRAPHS,
    METRICS,
    MODEL_OPTS,
    PRECISIONS,
    SAVED_IMAGES,
    TEST_MODES,
    RunSettings,
)
from sdxl_engine.systems_command import add_systems, systems

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULTS = RunSettings()
_COMMANDS = commands.COMMANDS | {
    "compare": compare,
    "diff": diff,
    "download-data": download_data,
    "download-model": download_model,
    "distill": distill,
    "export": export,
    "generate-engines": generate_engines,
    "preprocess-data": preprocess_data,
    "prune": prune,
    "systems": systems,
}


def _options() -> argparse.ArgumentParser:
    """The options that every subcommand about a model shares."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model",
        default=_DEFAULTS.model,
        help="auto, shapes, random, or the folder of an SDXL checkpoint (default: auto)",
    )
    shared.add_argument("--model-opt", default="DeepCache", help=f"{', '.join(MODEL_OPTS)} (default: DeepCache)")
    shared.add_argument("--engine", default=_DEFAULTS.engine, help="name of an engine (default: auto)")
    shared.add_argument(
        "--precision", default=_DEFAULTS.precision, help=f"{', '.join(PRECISIONS)} (default: the engine's own)"
    )
    shared.add_argument(
        "--device",
        default=_DEFAULTS.device,
        help="of the engine: cpu, cuda, cuda:N, several with commas (default: auto)",
    )
    shared.add_argument("--graphs", default=_DEFAULTS.graphs, help=f"CUDA graphs: {', '.join(GRAPHS)} (default: auto)")
    shared.add_argument("--shallow-steps", type=int, metavar="N", help="after each deep one (default: the variant's)")
    shared.add_argument("--deep-steps", metavar="LIST", help="the deep steps themselves, 0-3,6,9, in their place")
    shared.add_argument("--samples", type=int, help="how many captions, from the first (default: the model's own)")
    shared.add_argument("--shard", metavar="i/n", help="only this machine's share of the captions")
    shared.add_argument("--captions", type=Path, metavar="FILE", help="captions (TSV) in place of the model's own")
    shared.add_argument("--pipeline", metavar="MODULE:CALLABLE", help="the pipeline under test (default: our own)")
    shared.add_argument(
        "--build-dir",
        type=Path,
        default=_DEFAULTS.build_dir,
        help="where engines and logs go (default: build)",
    )
    shared.add_argument(
        "--timeout-s", type=float, default=_DEFAULTS.timeout_s, help="kill a run without progress (default: 600)"
    )
    shared.add_argument("--metrics", default=_DEFAULTS.metrics, help=f"{', '.join(METRICS)} (default: auto)")
    shared.add_argument("--metrics-dir", type=Path, metavar="DIR", help="metric networks in place of the model's own")
    shared.add_argument("--gate", default=_DEFAULTS.gate, help=f"{', '.join(GATES)} (default: auto)")
    shared.add_argument("--clip-range", metavar="LO,HI", help="the gate custom: valid CLIP scores")
    shared.add_argument("--fid-range", metavar="LO,HI", help="the gate custom: valid FIDs")
    shared.add_argument("--ranges", type=Path, metavar="FILE", help="the gate custom: ranges from a file (JSON)")
    shared.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    return shared


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdxl-engine", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _options()

    run = subcommands.add_parser("run", parents=[shared], help="run LoadGen, score, and judge the scores")
    run.add_argument("--scenario", default=_DEFAULTS.scenario, help="LoadGen's scenario (default: Offline)")
    run.add_argument("--resume", metavar="last|DIR", help="go on with an accuracy run that was killed")
    run.add_argument(
        "--responses", default=_DEFAULTS.responses, help="what LoadGen logs: digests, or images (default: digests)"
    )
    run.add_argument(
        "--save-images",
        default=_DEFAULTS.save_images,
        help=f"images to keep: {', '.join(SAVED_IMAGES)} (default: {_DEFAULTS.save_images})",
    )
    run.add_argument("--baseline", type=Path, metavar="DIR", help="accuracy run to compare with where the gate fails")
    run.add_argument("--test-mode", default=_DEFAULTS.test_mode, help=f"{', '.join(TEST_MODES)} (default: both)")

    generate = subcommands.add_parser("generate", parents=[shared], help="draw captions to <id>.png")
    for command in (run, generate):
        command.add_argument("--batch-size", type=int, help="images per batch (default: the machine's configuration's)")
    generate.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the pictures go")

    score = subcommands.add_parser("score", parents=[shared], help="CLIP and FID of pictures or of an accuracy log")
    images = score.add_mutually_exclusive_group()
    images.add_argument("--images", type=Path, metavar="DIR", help="a folder of <id>.png")
    for command in (run, score):
        command.add_argument(
            "--metrics-device",
            default=_DEFAULTS.metrics_device,
            metavar="DEVICE",
            help=f"where images are scored: {', '.join(DEVICES)} (default: auto, a GPU where there is one)",
        )
    score.add_argument("--output", type=Path, metavar="DIR", help="keep the record of the scores there")
    score.add_argument("--resume", metavar="DIR", help="go on with the record there, of a scoring that was killed")
    images.add_argument("--log", type=Path, metavar="FILE", help="an mlperf_log_accuracy.json")

    actions = score.add_subparsers(dest="action", metavar="merge")
    merge = actions.add_parser("merge", help="the scores of one run from the records of its shards")
    merge.add_argument("records", type=Path, nargs="+", metavar="RECORD", help="a record, or the log folder it is in")
    merge.add_argument("--output", type=Path, metavar="DIR", help="write the record of the whole run there")

    add_compare(subcommands, shared)
    # Options of its own: what it puts in the place of a shared one would be gone from the other subcommands.
    add_diff(subcommands, _options())
    add_systems(subcommands)
    add_downloads(subcommands)
    add_generate_engines(subcommands, shared)
    add_preprocess_data(subcommands, shared)
    add_export(subcommands, shared)
    add_prune(subcommands, shared)
    add_distill(subcommands, shared)
    subcommands.add_parser("doctor", parents=[shared], help="say what is installed and what would run")
    return parser


def _settings(arguments: argparse.Namespace) -> RunSettings:
    names = {field.name for field in dataclasses.fields(RunSettings)}
    settings = RunSettings(**{name: value for name, value in vars(arguments).items() if name in names})
    settings.check({name: "--" + name.replace("_", "-") for name in names})
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 if all is well, 1 for a failure or a gate that is not passed, 4 for a wrong option.
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        # argparse ends with 2; pytest's and this project's status for wrong usage is 4.
        return 4 if stop.code else 0
    try:
        outcome = _COMMANDS[arguments.command](_settings(arguments), arguments)
        if arguments.json is not None:
            commands.write_result(arguments.json, outcome.result)
    except SdxlError as error:
        print(f"sdxl-engine {arguments.command}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    if arguments.json is None and outcome.result and arguments.command == "doctor":
        print(json.dumps(outcome.result, indent=2))
    return 0 if outcome.passed else 1
