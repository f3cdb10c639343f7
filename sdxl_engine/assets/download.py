"""Carry a plan out: one file after the other, from the first of its places that has it."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sdxl_engine.assets.part import Part
from sdxl_engine.errors import AssetError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sdxl_engine.assets.plan import Item, Plan
    from sdxl_engine.assets.transfer import Patience, Progress

_BLOCK = 1 << 20


def check_libraries() -> None:
    """Find out whether what downloads need is installed.

    Raises:
        UnavailableError: it is not.
    """
    for name in ("requests", "tqdm"):
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"downloads need {name}", got="not installed", fix="pip install 'pytest-sdxl[download]'"
            )


@contextmanager
def alone(build_dir: Path) -> Iterator[None]:
    """Keep a second download out of the same build folder.

    Raises:
        UsageError: another one is under way there.
        AssetError: the folder cannot be written to.
    """
    try:
        build_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(build_dir / ".download.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError("another download is under way", source=build_dir, fix="wait for it to end") from None
    except OSError as error:
        raise AssetError("the build folder cannot be written to", got=error, source=build_dir) from None
    try:
        yield
    finally:
        lock.release()


def download(
    plan: Plan, shown: Callable[[Item], AbstractContextManager[Progress]], patience: Patience | None = None
) -> None:
    """Fetch what is missing, in the plan's order.

    Args:
        plan: What to fetch.
        shown: Shows the progress of one file.
        patience: With servers that fail.

    Raises:
        AssetError: a file could not be had, or is not what it must be; those before it are in their places.
    """
    plan.check_room()
    for item in plan.missing:
        with shown(item) as progress:
            _get(item, progress, patience)


def _get(item: Item, progress: Progress, patience: Patience | None) -> None:
    part = Part(item.target, item.wanted.asset)
    # Not before `check_libraries`.
    from sdxl_engine.assets.transfer import MissingAtSourceError, fetch

    missing: AssetError | None = None
    for place in item.wanted.places:
        if isinstance(place.where, Path):
            if place.where.is_file():
                return _copy(place.where, part, progress)
            continue
        try:
            return fetch(place, part, progress, patience)
        except MissingAtSourceError as error:
            missing = missing or error
    raise missing or AssetError(
        "the source does not have this file",
        got="no " + ", ".join(str(place.where) for place in item.wanted.places),
        source="--source",
    )


def _copy(path: Path, part: Part, progress: Progress) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file, part.opened(anew=True):
            while block := file.read(_BLOCK):
                part.write(block)
                progress(part.size, size)
    except OSError as error:
        raise AssetError("the source cannot be read", got=error, source=path) from None
    found = part.finish()
    if found:
        raise part.refused(f"{size} bytes, {part.asset.algorithm} {found}", path)
