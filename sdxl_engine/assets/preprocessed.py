"""The benchmark's inputs in the form that its harness reads: tokens, initial latent and ids as arrays.

Source of names, dtypes and folder: NVIDIA's MLPerf Inference v4.0 to v5.1 submissions,
code/stable-diffusion-xl/tensorrt/{preprocess_data,dataset,infer}.py.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch

from sdxl_engine import __version__
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.files import sha256, tree_files

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.assets.captions import Caption
    from sdxl_engine.models.spec import ModelSpec

WHAT = "preprocessed data"
TOKENIZERS = ("tokenizer", "tokenizer_2")


def ingredients(checkpoint: Path, captions_file: Path, rows: int, latent: Path) -> dict[str, object]:
    """Everything that decides what the arrays are.

    Args:
        checkpoint: A diffusers-layout folder; its tokenizers count.
        captions_file: The captions (TSV).
        rows: How many of them, from the first.
        latent: The initial latent (.npy).
    """
    return {
        "what": WHAT,
        "captions": sha256(captions_file),
        "rows": rows,
        "latent": sha256(latent),
        "tokenizers": {
            f"{part}/{name}": sha256(path) for part in TOKENIZERS for name, path in tree_files(checkpoint / part)
        },
        "version": __version__,
    }


def write_preprocessed(folder: Path, checkpoint: Path, captions: list[Caption], latent: Path, spec: ModelSpec) -> None:
    """Write the arrays of N captions.

    `prompt_ids_clip1_padded_5k.npy`, `prompt_ids_clip2_padded_5k.npy` and the same with `negative_` before:
    (N, 77) int32, the negative prompt's one row N times. `latents.npy` and `latents.pt`: (1, 4, S, S) float32, not
    scaled. `ids.npy`: (N,) int64, the captions' ids, by which images are named.

    Args:
        folder: Empty.
        checkpoint: A diffusers-layout folder.
        captions: N of them.
        latent: The initial latent (.npy).
        spec: Sizes of the checkpoint.

    Raises:
        AssetError: a tokenizer does not load, or the latent does not fit.
    """
    initial = read_latent(latent, spec)
    tokens = tokenise(checkpoint, [caption.text for caption in captions], spec.tokens)
    rows = len(captions)
    arrays = {
        "prompt_ids_clip1_padded_5k": tokens.first.numpy(),
        "prompt_ids_clip2_padded_5k": tokens.second.numpy(),
        "negative_prompt_ids_clip1_padded_5k": np.tile(tokens.negative_first.numpy(), (rows, 1)),
        "negative_prompt_ids_clip2_padded_5k": np.tile(tokens.negative_second.numpy(), (rows, 1)),
        "latents": initial.numpy(),
        "ids": np.array([caption.id for caption in captions], dtype=np.int64),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    # By way of memory: where the disk is full, torch's own writer says that something failed and not what.
    buffer = io.BytesIO()
    torch.save(initial, buffer)
    (folder / "latents.pt").write_bytes(buffer.getvalue())
