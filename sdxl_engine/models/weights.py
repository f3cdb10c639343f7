"""The safetensors of one part of a checkpoint: what they hold, and one tensor at a time.

A tensor of the wanted dtype is a view of the mapped file, so it costs memory only where it is read. Others are
converted one by one, and the file is mapped anew every so often: pages that were read count as this process's memory
for as long as the mapping lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

REMAPPED_AFTER = 256 << 20
"""Bytes read from one mapping by conversions before the file is mapped anew."""

_STEMS = ("diffusion_pytorch_model", "model")
"""Names of the weights' files, diffusers' and transformers'."""


def weight_files(part: Path) -> list[Path]:
    """The safetensors files of a part, one or several shards.

    Args:
        part: A folder of a diffusers-layout checkpoint, such as `unet`.

    Raises:
        AssetError: there are none, or a shard of the index is missing.
    """
    for stem in _STEMS:
        whole, index = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            shards = sorted(
                {part / name for name in read_json(index, "the index of the weights")["weight_map"].values()}
            )
            absent = [shard.name for shard in shards if not shard.is_file()]
            if absent:
                raise AssetError("a shard of the weights is missing", got=", ".join(absent), source=index)
            return shards
    raise AssetError(
        f"the weights of {part.name} are missing",
        got=", ".join(sorted(path.name for path in part.glob("*"))) or "no such folder",
        expected=" or ".join(f"{stem}.safetensors" for stem in _STEMS),
        source=part,
    )


def weight_sizes(part: Path) -> dict[str, int]:
    """Number of values per dtype, in safetensors' names (`F16`, `F32`), from the files' headers alone.

    Raises:
        AssetError: a file is missing or damaged.
    """
    found: dict[str, int] = {}
    for path in weight_files(part):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                count = 1
                for side in tensor.get_shape():
                    count *= side
                found[tensor.get_dtype()] = found.get(tensor.get_dtype(), 0) + count
    return found


def read_weights(part: Path, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a part as (name, tensor on the CPU in `dtype`).

    Raises:
        AssetError: a file is missing or damaged.
    """
    for path in weight_files(part):
        with _opened(path) as file:
            names = list(file.keys())
        while names:
            converted = 0
            with _opened(path) as file:
                while names and converted < REMAPPED_AFTER:
                    name = names.pop()
                    tensor = file.get_tensor(name)
                    if tensor.dtype != dtype:
                        converted += tensor.nbytes
                    yield name, tensor.to(dtype)
                    del tensor


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise AssetError("a file of weights is damaged", got=error, source=path) from None
