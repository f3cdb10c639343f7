"""Weights, configurations and statistics from their files, checked."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from sdxl_engine.accuracy.fid import Statistics
from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json, sha256, tree_files

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def read_config(path: Path, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object that has all of `keys`.

    Raises:
        AssetError: the file is missing, is not a JSON object, or lacks a key.
    """
    config = read_json(path, what)
    if not isinstance(config, dict):
        raise AssetError(f"{what} is not an object", got=type(config).__name__, source=path)
    missing = [key for key in keys if key not in config]
    if missing:
        raise AssetError(
            f"{what} is incomplete",
            got="no " + ", ".join(missing),
            expected="the keys " + ", ".join(keys),
            source=path,
        )
    return config


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `module`, as float32 whatever it holds, and set it to evaluation.

    Raises:
        AssetError: the file is missing, damaged, or holds other names or shapes than the module's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise AssetError(
            "a metric network's weights cannot be read",
            got="no such file" if not path.is_file() else error,
            expected="a safetensors file",
            source=path,
        ) from None
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise AssetError(
            "a metric network's weights do not fit its configuration",
            got=error,
            expected="the names and shapes that config.json beside them asks for",
            source=path,
        ) from None
    module.eval().requires_grad_(requires_grad=False)


def load_statistics(path: Path, dims: int) -> Statistics:
    """Read `mu` (dims,) and `sigma` (dims, dims) as float64; MLPerf's val2014.npz has the same keys.

    Raises:
        AssetError: the file is missing, damaged, lacks a key, has another size, or is not finite.
    """
    try:
        # Opened here: numpy leaves a path that turns out to be no archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            mu, sigma = (archive[key].astype(np.float64, copy=False) for key in ("mu", "sigma"))
    # TypeError: a single array is no context manager.
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AssetError(
            "the FID statistics cannot be read",
            got="no such file" if not path.is_file() else error,
            expected="an npz file with the keys mu and sigma",
            source=path,
        ) from None
    if mu.shape != (dims,) or sigma.shape != (dims, dims):
        raise AssetError(
            "the FID statistics belong to another network",
            got=f"mu {mu.shape}, sigma {sigma.shape}",
            expected=f"mu ({dims},), sigma ({dims}, {dims})",
            source=path,
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise AssetError("the FID statistics are not finite", source=path)
    return Statistics(mu, sigma)


def tree_sha256(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of all files of a folder."""
    lines = "".join(f"{sha256(path)}  {name}\n" for name, path in tree_files(folder))
    return hashlib.sha256(lines.encode()).hexdigest()
