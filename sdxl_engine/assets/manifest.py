"""The files to download, as `manifest.toml` lists them: names, sizes, digests, places. Imports nothing heavy."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST = Path(__file__).with_name("manifest.toml")
PRECISIONS = ("fp16", "fp32")
"""Of the checkpoint."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Asset:
    """One file.

    Args:
        name: Its path at its source, with `/`.
        target: Its path below the build folder.
        digest: In hex, by `algorithm`; empty where it comes from the server, see `bucket.py`.
        algorithm: `sha256`, `md5`, or `blob`, the SHA-1 of git's blob object.
        size: In bytes; None where none is published.
        url: Where it is published.
        md5: Digest of MLCommons' own copy, in hex; empty where none is published.
    """

    name: str
    target: Path
    digest: str
    algorithm: str = "sha256"
    size: int | None = None
    url: str = ""
    md5: str = ""

    def found(self, path: Path) -> str:
        """The digest of the file at `path`, by this asset's algorithm."""
        hasher = new_hash(self.algorithm, path.stat().st_size)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
        return hasher.hexdigest()


@dataclass(frozen=True)
class Group:
    """Files that belong together, in the order in which they are fetched.

    Args:
        name: `model-fp16`, `model-fp32`, `data` or `metrics`.
        target: Their folder, below the build folder.
        assets: The files.
        bucket: The address of MLCommons' own copy, without `.uri` and `.md5`; empty where there is none.
    """

    name: str
    target: Path
    assets: tuple[Asset, ...]
    bucket: str = ""


def new_hash(algorithm: str, size: int) -> hashlib._Hash:
    """A hash by `algorithm` of a file of `size` bytes, to be given its content."""
    if algorithm == "blob":
        # git's object name is no protection against an attacker, but of val2014.npz it is all that is published.
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    # MD5 likewise: MLCommons publishes nothing else of its checkpoints.
    return hashlib.new(algorithm, usedforsecurity=algorithm != "md5")


@functools.cache
def read_manifest(path: Path = MANIFEST) -> Mapping[str, Group]:
    """The groups by name.

    Raises:
        AssetError: the file is missing, or an entry lacks what it needs.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        model = table["model"]
        both = model["both"]["files"]
        found = {
            f"model-{precision}": _group(f"model-{precision}", model[precision], both, model["url"])
            for precision in PRECISIONS
        }
        return found | {name: _group(name, table[name]) for name in ("data", "metrics")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError("the manifest of downloads is damaged", got=repr(error), source=path) from None


def _group(name: str, table: dict[str, Any], more: list[dict[str, Any]] | None = None, url: str = "") -> Group:
    target = Path(table["target"])
    assets = tuple(_asset(entry, target, url) for entry in [*table["files"], *(more or [])])
    return Group(name, target, assets, table.get("bucket", ""))


def _asset(entry: dict[str, Any], target: Path, url: str) -> Asset:
    algorithm = "sha256" if "sha256" in entry else "blob"
    return Asset(
        name=entry["name"],
        target=target / entry.get("to", entry["name"]),
        digest=entry[algorithm],
        algorithm=algorithm,
        size=entry.get("bytes"),
        url=f"{entry.get('url', url)}/{entry['name']}",
        md5=entry.get("md5", ""),
    )
