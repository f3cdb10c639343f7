"""Prompts as the two tokenizers of a checkpoint see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.errors import AssetError
from sdxl_engine.models.prompts import NEGATIVE_PROMPT

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class TokenTable:
    """Tokens of N prompts and of the negative prompt.

    Args:
        first: (N, 77) int32 for `clip1`, padded with end-of-text.
        second: (N, 77) int32 for `clip2`, padded with id 0.
        negative_first: (1, 77) int32.
        negative_second: (1, 77) int32.
    """

    first: Tensor
    second: Tensor
    negative_first: Tensor
    negative_second: Tensor

    def to(self, device: torch.device) -> TokenTable:
        """The same table on another device; this very one's tensors where they lie there already."""
        first, second = self.first.to(device), self.second.to(device)
        return TokenTable(first, second, self.negative_first.to(device), self.negative_second.to(device))


def tokenise(checkpoint: Path, prompts: list[str], length: int) -> TokenTable:
    """Tokenise prompts with a checkpoint's `tokenizer` and `tokenizer_2`, padded and truncated to `length`.

    Raises:
        AssetError: a tokenizer does not load.
    """
    from transformers import CLIPTokenizer

    tables = []
    for name in ("tokenizer", "tokenizer_2"):
        try:
            tokenizer = CLIPTokenizer.from_pretrained(checkpoint / name, local_files_only=True)
        except (OSError, ValueError) as error:
            raise AssetError(f"cannot load {name}", got=error, source=checkpoint / name) from error
        rows = tokenizer([*prompts, NEGATIVE_PROMPT], padding="max_length", max_length=length, truncation=True)
        tables.append(torch.tensor(rows["input_ids"], dtype=torch.int32))
    first, second = tables
    return TokenTable(first[:-1], second[:-1], first[-1:], second[-1:])
