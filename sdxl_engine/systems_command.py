"""`sdxl-engine systems`: this machine, and the configurations that there are."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.commands import Outcome
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.settings import MODEL_OPTS, SCENARIOS, RunSettings
from sdxl_engine.systems.catalogue import own_folder, read_catalogue
from sdxl_engine.systems.computed import exact_match
from sdxl_engine.systems.machine import GIB, detect
from sdxl_engine.systems.resolve import resolve, system_config
from sdxl_engine.systems.writing import write_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.systems.config import RunConfig, SystemConfig
    from sdxl_engine.systems.resolve import Resolved

CHECK_BY_HAND = (
    "precision: int8 and fp8 take calibrated weights",
    "gpu_batch_size: raise it while it gets faster and fits",
    "offline_expected_qps and source, a table [Offline.DeepCache] with both: what a first run measured",
)
"""What nothing here can find out about a machine."""


def add_systems(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the parser."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--systems-dir", type=Path, metavar="DIR", help="configurations of your own, before all others")
    shared.add_argument(
        "--build-dir",
        type=Path,
        default=RunSettings().build_dir,
        help="whose folder systems has others (default: build)",
    )
    shared.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser = subcommands.add_parser("systems", help="this machine, and the configuration of the benchmark for it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="detect|list|show|add")
    actions.add_parser("detect", parents=[shared], help="what this machine is, which configuration it gets, and why")
    actions.add_parser("list", parents=[shared], help="all configurations, the one for this machine marked")
    show = actions.add_parser("show", parents=[shared], help="one configuration, as its file says it")
    show.add_argument("name", metavar="NAME", help="as `list` prints it")
    add = actions.add_parser("add", parents=[shared], help="write a file for this machine, to correct by hand")
    add.add_argument("--name", help="of the file, without .toml (default: made from the machine)")


def systems(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Run one of the actions."""
    return _ACTIONS[arguments.action](settings, arguments)


def _resolved(settings: RunSettings, arguments: argparse.Namespace) -> Resolved:
    return system_config(settings.build_dir, arguments.systems_dir)


def _detect(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """The machine and its configuration; a driver that does not answer is a failure, whatever is found besides."""
    resolved = _resolved(settings, arguments)
    machine, config = resolved.machine, resolved.config
    print(f"processor: {machine.cpu}, {machine.cores} cores, {machine.host_memory_bytes / GIB:.1f} GiB")
    print(f"driver: {machine.driver or 'none'}")
    for index, gpu in enumerate(machine.gpus):
        print(f"GPU {index}: {gpu}, {gpu.pci_id}, {gpu.uuid}")
    print(f"configuration: {_title(config)}")
    _print_notes(resolved)
    for scenario in SCENARIOS:
        for model_opt in MODEL_OPTS:
            print(f"  {scenario}, {model_opt}: {_run_text(config.run(scenario, model_opt))}")
    return Outcome(machine.gpu_error is None, resolved.to_json())


def _list(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    catalogue = read_catalogue(settings.build_dir, arguments.systems_dir)
    resolved = resolve(catalogue, detect())
    rows: list[dict[str, Any]] = []
    for config in catalogue.systems:
        chosen = config is resolved.config
        why_not = None if chosen else config.match.mismatch(resolved.machine) or f"{resolved.config.name} comes first"
        rows.append({"name": config.name, "path": str(config.path), "matches": chosen, "why_not": why_not})
        # Why not is only of interest for a file that is nearly right.
        near = not chosen and (config.match.knows(resolved.machine.gpus) or config.match.cpu)
        print(f"{'*' if chosen else ' '} {config.name}: {config.description}" + (f" ({why_not})" if near else ""))
    if resolved.config.path is None:
        print(f"* {_title(resolved.config)}")
    _print_notes(resolved)
    return Outcome(result={"systems": rows, "machine": resolved.machine.to_json(), "notes": list(resolved.notes)})


def _show(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    config = read_catalogue(settings.build_dir, arguments.systems_dir).named(arguments.name)
    assert config.path is not None, "a catalogue holds files"
    print(f"# {config.path}\n{config.path.read_text(encoding='utf-8')}", end="")
    return Outcome(result=config.to_json())


def _add(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    resolved = _resolved(settings, arguments)
    if resolved.machine.gpu_error is not None:
        raise UsageError(
            "this machine's GPUs are not known", got=resolved.machine.gpu_error, expected="a driver that answers"
        )
    folder = own_folder(settings.build_dir, arguments.systems_dir)
    if resolved.config.path is not None and resolved.config.path.parent == folder.absolute():
        raise AssetError(
            "this machine has a configuration of your own",
            source=resolved.config.path,
            fix="correct or remove that file",
        )
    name = _name(resolved) if arguments.name is None else arguments.name
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is None:
        raise UsageError(
            "this cannot be the name of a system", got=repr(name), expected="letters, digits, _ . -", source="--name"
        )
    start = dataclasses.replace(
        resolved.config, description=resolved.machine.summary, match=exact_match(resolved.machine)
    )
    comments = [f"Made by `sdxl-engine systems add` from {_title(resolved.config)}. Check by hand:"]
    path = folder / f"{name}.toml"
    written = write_system(start, path, [*comments, *(f"- {line}" for line in CHECK_BY_HAND)])
    print(f"wrote {path}, from {_title(resolved.config)}")
    _print_notes(resolved)
    print("check by hand:", *CHECK_BY_HAND, sep="\n  ")
    return Outcome(result=written.to_json())


def _name(resolved: Resolved) -> str:
    """Of the first GPU and their count, or of the processor."""
    gpus = resolved.machine.gpus
    text = f"{gpus[0].name}_x{len(gpus)}" if gpus else resolved.machine.cpu
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _title(config: SystemConfig) -> str:
    return f"{config.name} ({config.path})" if config.path is not None else config.name


def _print_notes(resolved: Resolved) -> None:
    for note in resolved.notes:
        print(f"note: {note}")


def _run_text(run: RunConfig) -> str:
    sizes = set(run.gpu_batch_size.values())
    batch = str(*sizes) if len(sizes) == 1 else ", ".join(f"{name} {size}" for name, size in run.gpu_batch_size.items())
    qps = "unmeasured" if run.offline_expected_qps is None else f"{run.offline_expected_qps:g} ({run.source})"
    graphs = "on" if run.use_graphs else "off"
    return (
        f"engine {run.engine}, {run.precision}, batch {batch}, graphs {graphs}, devices {run.devices}, "
        f"expected samples/s {qps}"
    )


_ACTIONS: dict[str, Callable[[RunSettings, argparse.Namespace], Outcome]] = {
    "detect": _detect,
    "list": _list,
    "show": _show,
    "add": _add,
}
