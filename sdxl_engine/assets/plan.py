"""What a download would do: which files are there and right, which are missing, how much, where to, and the room."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.assets.part import part_path
from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sdxl_engine.assets.sources import Wanted

GIB = 1 << 30
SPARE_BYTES = 64 << 20
"""Room that is left to others."""


@dataclass(frozen=True)
class Item:
    """One file of a plan.

    Args:
        wanted: What it must be and where it may be had.
        target: Where it goes.
        there: Whether it is there, with the right digest.
        begun: Bytes that an earlier download left.
    """

    wanted: Wanted
    target: Path
    there: bool
    begun: int

    @property
    def rest(self) -> int | None:
        """Bytes to fetch; None where no size is published."""
        size = self.wanted.asset.size
        return 0 if self.there else None if size is None else max(0, size - self.begun)

    @property
    def state(self) -> str:
        """In a few words."""
        if self.there:
            return "verified"
        if self.begun:
            return f"{amount(self.begun)} there"
        return "not verified" if self.target.is_file() else "missing"


@dataclass(frozen=True)
class Plan:
    """The files of a download, and the bytes that are free where they go."""

    items: tuple[Item, ...]
    free: int

    @property
    def missing(self) -> tuple[Item, ...]:
        """The files to fetch."""
        return tuple(item for item in self.items if not item.there)

    @property
    def rest(self) -> int:
        """Bytes to fetch, as far as sizes are published."""
        return sum(item.rest or 0 for item in self.items)

    def __str__(self) -> str:
        """A line for each file, what their places have in common above, the sum below."""
        to = _common([str(item.target) for item in self.items])
        places = {item.target: str(item.wanted.places[0].where) for item in self.missing if item.wanted.places}
        origin = _common(list(places.values()))
        lines = [f"to:   {to}"] + ([f"from: {origin}"] if origin else [])
        for item in self.items:
            asset = item.wanted.asset
            size = "from the server" if asset.size is None else amount(asset.size)
            digest = f"{asset.algorithm} {asset.digest[:12]}" if asset.digest else "from the server"
            place = f"  <- {places[item.target].removeprefix(origin)}" if item.target in places else ""
            lines.append(f"{item.state:<15} {size:>15}  {digest:<20}{str(item.target).removeprefix(to)}{place}")
        unknown = sum(item.rest is None for item in self.items)
        more = f" and {unknown} of a size that only the server knows" if unknown else ""
        total = f"{len(self.missing)} of {len(self.items)} files to fetch: {amount(self.rest)}{more}"
        return "\n".join([*lines, f"{total}; {amount(self.free)} free"])

    def check_room(self) -> None:
        """Refuse before the first byte what the disk cannot hold.

        Raises:
            AssetError: it has less free than the files need.
        """
        if self.missing and self.rest + SPARE_BYTES > self.free:
            raise AssetError(
                "the disk has too little room",
                got=f"{amount(self.free)} free",
                expected=f"{amount(self.rest)}, and {amount(SPARE_BYTES)} to spare",
                source=self.missing[0].target.parent,
                fix="make room, or choose another --build-dir",
            )

    def check_all_there(self) -> None:
        """Refuse to go on without what is missing.

        Raises:
            AssetError: a file is missing; the message lists them all.
        """
        if self.missing:
            raise AssetError(
                f"{len(self.missing)} of {len(self.items)} files are missing, and --offline fetches none",
                got="no " + ", ".join(str(item.target) for item in self.missing),
                fix="repeat the command without --offline, or with --source FOLDER",
            )


def make_plan(files: Sequence[Wanted], build_dir: Path, tell: Callable[[str], None]) -> Plan:
    """Look at what is there; each file that is, is read through.

    Args:
        files: What is wanted.
        build_dir: Below which the files go.
        tell: Given a line before a large file is read.

    Raises:
        AssetError: something else lies in the place of a file, or it cannot be read.
    """
    items = tuple(_item(wanted, build_dir / wanted.asset.target, tell) for wanted in files)
    folder = build_dir.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return Plan(items, shutil.disk_usage(folder).free)


def _item(wanted: Wanted, target: Path, tell: Callable[[str], None]) -> Item:
    asset = wanted.asset
    if target.is_file() and asset.digest:
        size = target.stat().st_size
        if size >= GIB // 4:
            tell(f"verifying {target} ({amount(size)})")
        try:
            found = asset.found(target) if asset.size in (None, size) else f"not computed for {size} bytes"
        except OSError as error:
            raise AssetError("a file cannot be read", got=error, source=target) from None
        if found != asset.digest:
            raise AssetError(
                f"another {target.name} is there than the one that is asked for; it is left alone",
                got=f"{asset.algorithm} {found}",
                expected=f"{asset.algorithm} {asset.digest}",
                source=target,
                fix=f"rm '{target}' and repeat the command",
            )
    elif target.exists() and not target.is_file():
        raise AssetError("a folder is in the place of a file", got=f"a folder {target.name}", source=target)
    part = part_path(target)
    there = target.is_file() and bool(asset.digest)
    return Item(wanted, target, there, 0 if there or not part.is_file() else part.stat().st_size)


def _common(places: list[str]) -> str:
    """What places begin with, up to a slash."""
    # An address is no path, so commonpath would take a slash from it.
    return os.path.commonprefix(places).rpartition("/")[0] + "/" if places else ""  # noqa: RUF071


def amount(size: int) -> str:
    """Bytes in the unit that reads best."""
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= width:
            return f"{size / width:.2f} {unit}"
    return f"{size} bytes"
