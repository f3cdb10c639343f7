"""Files that are whole or not there: checksums, write-aside-then-rename, JSON."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Iterator


_ASIDE = ".part"


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file below `folder` as (POSIX path relative to it, path), in sorted order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file to; renamed onto `target` only if the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_ASIDE, dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` to fill; takes `target`'s place only if the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(target)
    old = _beside(target)
    try:
        yield aside
        aside.chmod(0o755)
        if target.exists():
            # Out of the way in one step: removed in its place, it would be half a folder for a while.
            target.replace(old)
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Remove what a killed process left of `folder_written_whole(target)`; for a caller that holds a lock on it."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*{_ASIDE}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(target: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_ASIDE, dir=target.parent))


@contextmanager
def full_disk_named(target: Path) -> Iterator[None]:
    """Make one clear error of a disk that is full, a quota or a limit on the size of files.

    Raises:
        AssetError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        # numpy's message has no number where it could not write all of an array.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}:
            raise
        free = shutil.disk_usage(target.parent).free
        raise AssetError(
            "it could not be written as a whole, and nothing is left of it",
            got=f"{error.strerror or error}; {free / 1e9:.2f} GB are free",
            source=target,
            fix="make room, or name a folder on another disk",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON (sorted keys, no NaN), whole or not at all."""
    with written_whole(path) as aside:
        aside.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; `what` names its role in the error.

    Raises:
        AssetError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AssetError(f"{what} is missing", expected="a JSON file", source=path) from None
    except ValueError as error:
        raise AssetError(f"{what} is not valid JSON", got=error, source=path) from None
