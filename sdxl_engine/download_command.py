"""`sdxl-engine download-model` and `download-data`: fetch what the benchmark runs on, verified."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.assets.bucket import fetch_list, list_path, wanted_of_list, wanted_of_no_list
from sdxl_engine.assets.download import alone, check_libraries, download
from sdxl_engine.assets.manifest import PRECISIONS, Group, read_manifest
from sdxl_engine.assets.plan import Item, Plan, amount, make_plan
from sdxl_engine.assets.sources import HUGGING_FACE, MLCOMMONS, PUBLISHED, Wanted, check_source, wanted
from sdxl_engine.commands import Outcome
from sdxl_engine.errors import unknown_choice
from sdxl_engine.settings import RunSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from sdxl_engine.assets.transfer import Progress

DATA = ("data", "metrics")


def add_downloads(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two subcommands to the parser."""
    model = subcommands.add_parser("download-model", help="fetch SDXL base 1.0, verified")
    model.add_argument("--precision", default="fp16", help=f"{', '.join(PRECISIONS)} (default: fp16)")
    data = subcommands.add_parser("download-data", help="fetch captions, latent and metric networks, verified")
    data.add_argument("--only", metavar="GROUP", help=f"one of {', '.join(DATA)} (default: both)")
    for parser, source in ((model, HUGGING_FACE), (data, PUBLISHED)):
        named = f"{source}, {MLCOMMONS}, " if parser is model else f"{source}, "
        parser.add_argument(
            "--source", default=source, help=f"{named}a folder, or the address of a mirror (default: {source})"
        )
        parser.add_argument("--dry-run", action="store_true", help="print what would be fetched, and fetch nothing")
        parser.add_argument("--offline", action="store_true", help="fetch nothing: verify that all of it is there")
        parser.add_argument(
            "--build-dir", type=Path, default=RunSettings().build_dir, help="where it goes (default: build)"
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def download_model(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Fetch a checkpoint."""
    if settings.precision not in PRECISIONS:
        raise unknown_choice("precision of the checkpoint", settings.precision, PRECISIONS, source="--precision")
    check_source(arguments.source, (HUGGING_FACE, MLCOMMONS))
    return _run([read_manifest()[f"model-{settings.precision}"]], settings.build_dir, arguments)


def download_data(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Fetch captions, latent, calibration captions, and the networks and statistics of the metrics."""
    if arguments.only not in (None, *DATA):
        raise unknown_choice("group of files", arguments.only, DATA, source="--only")
    check_source(arguments.source, (PUBLISHED,))
    groups = [read_manifest()[name] for name in DATA if arguments.only in (None, name)]
    return _run(groups, settings.build_dir, arguments)


def _run(groups: list[Group], build_dir: Path, arguments: argparse.Namespace) -> Outcome:
    quiet = arguments.dry_run or arguments.offline
    if quiet:
        plan = _plan(groups, build_dir, arguments, online=False)
        print(plan)
        if arguments.offline:
            plan.check_all_there()
    else:
        check_libraries()
        with alone(build_dir):
            plan = _plan(groups, build_dir, arguments, online=True)
            print(plan)
            download(plan, _bar)
            print(f"{len(plan.items)} files there, each of them verified" if plan.missing else "nothing to fetch")
    files = [
        {"file": item.target, "fetched": not (item.there or quiet), "there": item.there or not quiet}
        | {"bytes": item.wanted.asset.size, item.wanted.asset.algorithm: item.wanted.asset.digest}
        for item in plan.items
    ]
    return Outcome(result={"files": files})


def _plan(groups: list[Group], build_dir: Path, arguments: argparse.Namespace, *, online: bool) -> Plan:
    def files(group: Group) -> list[Wanted]:
        if arguments.source != MLCOMMONS:
            return wanted(group, arguments.source)
        listed = list_path(group, build_dir)
        if online:
            return wanted_of_list(group, listed, fetch_list(group, listed))
        return wanted_of_list(group, listed) if arguments.offline or listed.exists() else wanted_of_no_list(group)

    return make_plan([file for group in groups for file in files(group)], build_dir, _tell)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _bar(item: Item) -> Iterator[Progress]:
    """A progress bar with bytes and time left on standard error; a line where that is no terminal."""
    from tqdm import tqdm

    with tqdm(
        desc=item.target.name, total=item.wanted.asset.size, initial=item.begun, unit="B", unit_scale=True, disable=None
    ) as bar:
        if bar.disable:
            _tell(f"fetching {item.target} ({'size unknown' if item.rest is None else amount(item.rest)})")

        def progress(there: int, total: int | None) -> None:
            bar.total = total
            bar.update(there - bar.n)

        yield progress
