"""Where each file of a group is fetched from: its publisher, MLCommons' bucket, or a folder or mirror of the user's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.assets.manifest import Asset, Group

HUGGING_FACE = "huggingface"
MLCOMMONS = "mlcommons"
PUBLISHED = "published"
"""Each file from the address that the manifest has for it."""

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Place:
    """Where one file may be.

    Args:
        where: An address, or a path on this machine.
        headers: Of the request.
        redirects: Whether to follow them.
    """

    where: str | Path
    headers: Mapping[str, str] = field(default_factory=dict)
    redirects: bool = True


@dataclass(frozen=True)
class Wanted:
    """One file to have.

    Args:
        asset: With the digest that it is held to.
        places: Where it may be, tried in this order.
    """

    asset: Asset
    places: tuple[Place, ...] = ()


def check_source(source: str, named: tuple[str, ...]) -> None:
    """Refuse a source that is none.

    Args:
        source: One of `named`, an address, or a folder.
        named: Sources with a name.

    Raises:
        UsageError: it is none of them.
    """
    if source not in named and not is_address(source) and not Path(source).is_dir():
        raise UsageError(
            f"unknown source {source!r}",
            got="no such folder",
            expected=", ".join(named) + ", the address of a mirror (https://...), or a folder",
            source="--source",
        )


def is_address(source: str) -> bool:
    """Whether a source is an address of a mirror."""
    return source.startswith(("https://", "http://"))


def wanted(group: Group, source: str) -> list[Wanted]:
    """The files of a group, from any source but MLCommons' bucket, see `bucket.py`.

    A mirror or a folder has the files under their published names (a clone of the repository, say) or under their
    names in the build folder, and the digests of the published ones.
    """
    if source in (HUGGING_FACE, PUBLISHED):
        return [Wanted(asset, (_published(asset),)) for asset in group.assets]
    if is_address(source):
        return [
            Wanted(asset, tuple(Place(f"{source.rstrip('/')}/{name}") for name in _names(asset)))
            for asset in group.assets
        ]
    return [Wanted(asset, tuple(Place(Path(source) / name) for name in _names(asset))) for asset in group.assets]


def _names(asset: Asset) -> tuple[str, str]:
    return asset.name, asset.target.as_posix()


def _published(asset: Asset) -> Place:
    if not asset.url.startswith(_HUB + "/"):
        return Place(asset.url)
    # As huggingface_hub reads them.
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB
    token = os.environ.get("HF_TOKEN", "").strip()
    return Place(endpoint + asset.url.removeprefix(_HUB), {"Authorization": f"Bearer {token}"} if token else {})
