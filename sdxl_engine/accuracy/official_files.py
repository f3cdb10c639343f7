"""The files that the metric variant `mlperf` is made of, see `assets/manifest.py`. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.assets.manifest import read_manifest
from sdxl_engine.errors import AssetError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.assets.manifest import Asset

_GROUP = read_manifest()["metrics"]
_ASSETS = {asset.name: asset for asset in _GROUP.assets}
FILES: Mapping[str, Asset] = {
    "clip": _ASSETS["ViT-B-32.pt"],
    "inception": _ASSETS["pt_inception-2015-12-05-6726825d.pth"],
    "statistics": _ASSETS["val2014.npz"],
}
"""By their roles."""

_COMMAND = "sdxl-engine download-data --only metrics"


def require_files(folder: Path, files: Mapping[str, Asset] = FILES) -> None:
    """Find out, without reading them, whether the files are there.

    Raises:
        UnavailableError: one is not; the fix is the command that gets what is missing.
    """
    missing = [file for file in files.values() if not (folder / file.name).is_file()]
    if missing:
        raise UnavailableError(
            "the official score needs the benchmark's own metric networks; no others are put in their place",
            got="no " + ", ".join(file.name for file in missing),
            expected=", ".join(file.name for file in files.values()),
            source=folder,
            fix=_fix(folder),
        )


def checked(path: Path, file: Asset) -> str:
    """The digest of the file at `path`.

    Raises:
        AssetError: it is not the published one.
    """
    found = file.found(path)
    if found != file.digest:
        raise AssetError(
            f"{file.name} is not the file that the benchmark scores with",
            got=f"{file.algorithm} {found}",
            expected=f"{file.algorithm} {file.digest}",
            source=path,
            fix=f"rm '{path}' && {_fix(path.parent)}",
        )
    return found


def _fix(folder: Path) -> str:
    """The command that puts the files into `folder`; into the build folder where it is one of the user's own."""
    parts = len(_GROUP.target.parts)
    if folder.parts[-parts:] != _GROUP.target.parts:
        return f"{_COMMAND}; it puts them in build/{_GROUP.target}: use that, or copy them from there"
    return f"{_COMMAND} --build-dir '{folder.parents[parts - 1]}'"
