"""MLCommons' own copy of the checkpoint: a bucket that says where its files lie and what their MD5 digests are.

`NAME.uri` holds the address of the folder, `NAME.md5` lines of `md5sum`; a token of Cloudflare Access goes with each
request (mlcommons/r2-downloader, mlc-r2-downloader.sh). Of the digests of the list, those that MLPerf's v4.1 results
publish are in the manifest and must be the same; what remains is known from the bucket alone.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING

from sdxl_engine.assets.sources import Place, Wanted
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.assets.manifest import Asset, Group

_TIMEOUT_S = 60.0
_TOKEN = "CF_ACCESS_TOKEN"  # noqa: S105  the variable's name
_FOLDER = "checkpoint_pipe"
"""In the bucket's folder, the one with the checkpoint."""


def list_path(group: Group, build_dir: Path) -> Path:
    """Where the bucket's list of digests is kept: beside the folder of the checkpoint."""
    return build_dir / group.target.parent / f"{_bucket(group).rpartition('/')[2]}.md5"


def wanted_of_list(group: Group, listed: Path, base: str = "") -> list[Wanted]:
    """The files of a group with the digests of the bucket's list.

    Args:
        group: A checkpoint.
        listed: The list.
        base: Address of the bucket's folder; empty where nothing is fetched.

    Raises:
        AssetError: the list is missing, is none, lacks a file, or contradicts a published digest.
    """
    try:
        text = listed.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError("no list of digests from MLCommons", got=error, source=listed) from None
    lines = re.findall(r"^([0-9a-f]{32})[ *\t]+(?:\./)?(.+?)\s*$", text, re.MULTILINE)
    digests = {name: digest for digest, name in lines}
    if not digests:
        raise AssetError(
            "this is no list of digests",
            got=text[:60],
            expected="lines of md5sum",
            source=listed,
            fix=f"rm '{listed}', set {_TOKEN} (cloudflared access token), and repeat the command",
        )
    return [_one(asset, digests, group, base, listed) for asset in group.assets]


def wanted_of_no_list(group: Group) -> list[Wanted]:
    """The files of a group before the bucket's list is known: with the published digests, else with none."""
    return [Wanted(dataclasses.replace(asset, digest=asset.md5, algorithm="md5", size=None)) for asset in group.assets]


def fetch_list(group: Group, listed: Path) -> str:
    """Download the bucket's list to `listed`.

    Returns:
        The address of the bucket's folder.

    Raises:
        AssetError: the bucket does not answer, or asks to log in.
    """
    address = _bucket(group)
    base = _text(address + ".uri").strip().rstrip("/")
    if not base.startswith(("https://", "http://")) or len(base.split()) != 1:
        raise AssetError("this is no address of a folder", got=base[:60], source=address + ".uri")
    text = _text(address + ".md5")
    with written_whole(listed) as aside:
        aside.write_text(text, encoding="utf-8")
    return base


def _bucket(group: Group) -> str:
    if not group.bucket:
        raise UsageError(f"MLCommons has no bucket with {group.name}", expected="the model", source="--source")
    return group.bucket


def _headers() -> dict[str, str]:
    token = os.environ.get(_TOKEN, "").strip()
    return {"cf-access-token": token} if token else {}


def _text(url: str) -> str:
    import requests

    try:
        # A redirect is one to log in.
        response = requests.get(url, headers=_headers(), timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise AssetError("MLCommons' bucket does not answer", got=error, source=url) from None
    if response.status_code != 200:
        raise AssetError(
            "MLCommons' bucket does not give its list",
            got=f"HTTP {response.status_code} {response.reason}",
            source=url,
            fix=f"set {_TOKEN} to what `cloudflared access token --app={url}` prints, or use --source huggingface",
        )
    return response.text


def _one(asset: Asset, digests: dict[str, str], group: Group, base: str, listed: Path) -> Wanted:
    within = asset.target.relative_to(group.target).as_posix()
    names = [name for name in digests if name == within or f"/{name}".endswith(f"/{_FOLDER}/{within}")]
    if len(names) != 1:
        got = ", ".join(names) or "none"
        raise AssetError(f"the list has not one {within}", got=got, expected="one", source=listed)
    digest = digests[names[0]]
    if asset.md5 and digest != asset.md5:
        raise AssetError(
            f"the list has another {within} than the published one",
            got=f"md5 {digest}",
            expected=f"md5 {asset.md5}",
            source=listed,
        )
    held = dataclasses.replace(asset, digest=digest, algorithm="md5", size=None)
    places = (Place(f"{base}/{names[0]}", _headers(), redirects=False),) if base else ()
    return Wanted(held, places)
