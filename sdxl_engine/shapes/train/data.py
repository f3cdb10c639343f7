"""What the stages train on: a pool of captions, their tokens and scenes, all held on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from sdxl_engine.models.prompts import NEGATIVE_PROMPT
from sdxl_engine.shapes.grammar import Scene, training_captions
from sdxl_engine.shapes.render import SceneTensors, render, scene_tensors
from sdxl_engine.shapes.train.networks import TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.shapes.train.recipe import Recipe

NO_RELATION = 2
"""Label of a single object; 0 is side by side, 1 is one above the other."""


def tokenise(folder: Path, captions: list[str]) -> Tensor:
    """(N, 77) int64 tokens of captions, padded as the tokenizer in `folder` pads."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    rows = tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True)["input_ids"]
    return torch.tensor(rows)


@dataclass(frozen=True)
class Pool:
    """N training captions on the device.

    Args:
        first: (N, 77) int64 tokens, padded with end-of-text.
        second: (N, 77) int64 tokens, padded with 0.
        negative: (2, 77) int64: the negative prompt in both paddings.
        scenes: The scenes, with the object on the left or at the top first.
        axis: (N,) int64: 0 side by side, 1 above each other, 2 one object.
        eos: Id of the end-of-text token.
    """

    first: Tensor
    second: Tensor
    negative: Tensor
    scenes: SceneTensors
    axis: Tensor
    eos: int

    def __len__(self) -> int:
        return len(self.first)

    def draw(self, count: int) -> Tensor:
        """`count` random row numbers, made on the device."""
        return torch.randint(len(self), (count,), device=self.first.device)

    def pictures(self, rows: Tensor) -> Tensor:
        """Fresh renders of rows: (B, 3, 128, 128) float32 in [0, 1], jittered by the device's default generator."""
        scenes = self.scenes[rows]
        generator = torch.cuda.default_generators[rows.device.index or 0] if rows.is_cuda else torch.default_generator
        return render(scenes, generator)


def make_pool(recipe: Recipe, scenes: list[Scene], bundle: Path, seed: int, device: torch.device) -> Pool:
    """Draw the training captions and put them on the device."""
    drawn = training_captions(scenes, recipe.pool, recipe.single_share, seed)
    captions = [caption for caption, _ in drawn]
    distinct = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    row = torch.tensor([distinct[caption] for caption in captions])
    first = tokenise(bundle / "tokenizer", list(distinct))
    eos = int(first.max())
    # tokenizer_2 differs in its padding alone, id 0 after the first end-of-text: not worth a second pass.
    second = first.masked_fill((first == eos).cumsum(dim=1) > 1, 0)
    canonical = [scene.canonical for _, scene in drawn]
    axis = [NO_RELATION if len(scene.things) == 1 else int(scene.where == "above") for scene in canonical]
    return Pool(
        first=first[row].to(device),
        second=second[row].to(device),
        negative=torch.cat([tokenise(bundle / name, [NEGATIVE_PROMPT]) for name in ("tokenizer", "tokenizer_2")]).to(
            device
        ),
        scenes=scene_tensors(canonical).to(device),
        axis=torch.tensor(axis, device=device),
        eos=eos,
    )
