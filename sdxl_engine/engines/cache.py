"""Built engine files under a content address: their ingredients decide where they lie, so stale ones never run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from filelock import FileLock

from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import (
    folder_written_whole,
    full_disk_named,
    read_json,
    remove_leftovers,
    sha256,
    tree_files,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"


def content_key(ingredients: Mapping[str, object]) -> str:
    """A short digest of everything that decides what is built: weights, flags, library versions, building code."""
    text = json.dumps(ingredients, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def built_once(cache: Path, name: str, ingredients: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills from `ingredients`, made on first use.

    Safe with several processes: one builds, the others wait. A folder whose files do not match its manifest (a damaged
    disk, an edit by hand) is built again.

    Args:
        cache: Where engines lie, `build/engines`.
        name: Start of the folder's name, for people.
        ingredients: What the content is made from; JSON.
        build: Fills the empty folder it is given.
    """
    target = _address(cache, name, ingredients)
    built_at(target, ingredients, build)
    return target


def found_built(cache: Path, name: str, ingredients: Mapping[str, object]) -> Path | None:
    """The folder that `built_once` would not build again; None where it would. Arguments as there."""
    target = _address(cache, name, ingredients)
    return target if _intact(target, ingredients) else None


def _address(cache: Path, name: str, ingredients: Mapping[str, object]) -> Path:
    return cache / f"{name}-{content_key(ingredients)}"


def built_at(target: Path, ingredients: Mapping[str, object], build: Callable[[Path], None]) -> bool:
    """Fill one folder as `built_once` does, unless it holds the same already.

    Returns:
        Whether it was built now.

    Raises:
        AssetError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        remove_leftovers(target)
        if _intact(target, ingredients):
            return False
        with full_disk_named(target), folder_written_whole(target) as aside:
            build(aside)
            digests = {relative: sha256(path) for relative, path in tree_files(aside)}
            write_json(aside / MANIFEST, {"ingredients": ingredients, "sha256": digests})
    return True


def check_replaceable(target: Path, what: str) -> None:
    """Refuse to put a folder in the place of a user's own files.

    Args:
        target: Where `built_at` is to build; missing, empty, or built before.
        what: `what` of its ingredients.

    Raises:
        UsageError: it holds something else.
    """
    try:
        ours = read_json(target / MANIFEST, "a manifest")["ingredients"]["what"] == what
    except (AssetError, NotADirectoryError, KeyError, TypeError):
        ours = False
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not ours):
        raise UsageError(
            "the output folder holds other files",
            got=target,
            expected=f"a folder that is new or empty, or an earlier {what}",
            source="--output",
        )


def _intact(folder: Path, ingredients: Mapping[str, object]) -> bool:
    """Whether a folder was built from these ingredients and holds exactly the files of its manifest, unchanged."""
    try:
        manifest = read_json(folder / MANIFEST, "an engine's manifest")
        expected, built_from = manifest["sha256"], manifest["ingredients"]
    except (AssetError, KeyError, TypeError):
        return False
    if content_key(built_from) != content_key(ingredients):
        return False
    found = {relative: path for relative, path in tree_files(folder) if relative != MANIFEST}
    return found.keys() == expected.keys() and all(sha256(path) == expected[name] for name, path in found.items())
