"""Built engine files under a content address: their ingredients decide where they lie, so stale ones never run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from filelock import FileLock

from sdxl_engine.errors import AssetError
from sdxl_engine.files import folder_written_whole, read_json, sha256, tree_files, write_json

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
    target = cache / f"{name}-{content_key(ingredients)}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{target.name}.lock"):
        if not _intact(target):
            with folder_written_whole(target) as aside:
                build(aside)
                digests = {relative: sha256(path) for relative, path in tree_files(aside)}
                write_json(aside / MANIFEST, {"ingredients": ingredients, "sha256": digests})
    return target


def _intact(folder: Path) -> bool:
    """Whether a folder holds exactly the files of its manifest, unchanged."""
    try:
        expected = read_json(folder / MANIFEST, "an engine's manifest")["sha256"]
    except (AssetError, KeyError, TypeError):
        return False
    found = {relative: path for relative, path in tree_files(folder) if relative != MANIFEST}
    return found.keys() == expected.keys() and all(sha256(path) == expected[name] for name, path in found.items())
