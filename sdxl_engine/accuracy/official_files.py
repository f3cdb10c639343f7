"""Names, addresses and digests of the files that the metric variant `mlperf` is made of. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.errors import AssetError, UnavailableError
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class OfficialFile:
    """One file of the variant.

    Args:
        name: In the metrics folder.
        url: Where it is published.
        digest: In hex; `sha256`, or `blob` for the SHA-1 of git's blob object, where only that is published.
        algorithm: `sha256` or `blob`.
    """

    name: str
    url: str
    digest: str
    algorithm: str = "sha256"

    def found(self, path: Path) -> str:
        """The digest of the file at `path`."""
        if self.algorithm == "sha256":
            return sha256(path)
        # git's object name is no protection against an attacker, but it is the only digest published.
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        digest.update(path.read_bytes())
        return digest.hexdigest()


# OpenAI has the digest in the address; pytorch-fid has its first eight digits in the name.
_OPENAI = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
FILES = {
    "clip": OfficialFile(
        "ViT-B-32.pt", f"https://openaipublic.azureedge.net/clip/models/{_OPENAI}/ViT-B-32.pt", _OPENAI
    ),
    "inception": OfficialFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "statistics": OfficialFile(
        "val2014.npz",
        "https://github.com/mlcommons/inference/raw/master/text_to_image/tools/val2014.npz",
        "806479d0693a33110526b6689aa26baddd995c7b",
        "blob",
    ),
}


def require_files(folder: Path, files: Mapping[str, OfficialFile] = FILES) -> None:
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
            fix=" && ".join(
                [f"mkdir -p '{folder}'", *(f"curl -fL -o '{folder / file.name}' {file.url}" for file in missing)]
            ),
        )


def checked(path: Path, file: OfficialFile) -> str:
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
            fix=f"curl -fL -o '{path}' {file.url}",
        )
    return found
