"""Whether a run starts from the benchmark's own captions and initial latent, told by their digests."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import captions_sha256, read_captions

if TYPE_CHECKING:
    from pathlib import Path

CAPTIONS = "a0af3b6480ff90ad4df4e0b537549e7db8013f3c8caca1b1f7a935df628232c7"
"""`captions_sha256` of the benchmark's captions_source.tsv (the file's own SHA-256 begins 2eeb95637b30)."""

LATENT = "ea2c5d770d8921c79b43fade2dcecab9c95baae0500f5a2bc860ceb45faeccb1"
"""SHA-256 of the values of the benchmark's latents.npy, (1, 4, 128, 128) little-endian float32 in C order (the file's
own begins 78cac10a20ea)."""


def other_inputs(captions: Path, latent: Path) -> str:
    """What is not the benchmark's own; empty where both are.

    A file that is missing is left to whoever reads it, so it is not found different.

    Args:
        captions: A captions file (TSV).
        latent: An initial latent (.npy).

    Raises:
        AssetError: the captions file is malformed.
    """
    if captions.is_file() and captions_sha256(read_captions(captions)) != CAPTIONS:
        return f"the captions in {captions} are not the benchmark's"
    if latent.is_file() and latent_sha256(latent) != LATENT:
        return f"the initial latent in {latent} is not the benchmark's"
    return ""


def latent_sha256(path: Path) -> str:
    """Hex SHA-256 of a latent's values; empty for what is no .npy file of the benchmark's shape and type."""
    import numpy as np

    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError:
        return ""
    if array.shape != (1, 4, 128, 128) or array.dtype.newbyteorder("<") != np.dtype("<f4"):
        return ""
    return hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()
