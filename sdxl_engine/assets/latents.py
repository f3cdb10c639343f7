"""The one initial latent that the benchmark starts every image from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sdxl_engine.errors import AssetError

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.models.spec import ModelSpec


def read_latent(path: Path, spec: ModelSpec) -> Tensor:
    """Read `latents.npy`: (1, 4, S, S) float32, standard normal, not yet scaled by the schedule.

    Raises:
        AssetError: the file is missing, or holds another shape, another dtype or a value that is not finite.
    """
    expected = (1, spec.latent_channels, spec.latent_side, spec.latent_side)
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise AssetError("the initial latent is missing", expected="latents.npy", source=path) from None
    except ValueError as error:
        raise AssetError("the initial latent is not a .npy file", got=error, source=path) from None
    if array.shape != expected or array.dtype != np.float32 or not np.isfinite(array).all():
        raise AssetError(
            "the initial latent does not fit the model",
            got=f"{array.shape} {array.dtype}"
            + ("" if np.isfinite(array).all() else " with values that are not finite"),
            expected=f"{expected} float32",
            source=path,
        )
    return torch.from_numpy(array)
