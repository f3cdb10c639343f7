"""open_clip's CLIP, of which only what its embeddings depend on is evaluated."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

from sdxl_engine.accuracy.cpu_linear import linear

TOGETHER = 32
"""Captions in one sequence; its attention takes time and memory with the square of its length."""


class LeanClip(open_clip.CLIP):  # type: ignore[misc]  # open_clip has no types
    """The same function in evaluation, in less time.

    An embedding is read at one token: the first of the image tower, the end of the caption in the text tower. So the
    last block of each has only that token's query to answer. In the text tower no position sees a later one, so
    captions end where their text ends: they stand behind one another in one sequence, each attending to itself. Those
    of MLPerf have 13.5 tokens of 77 on average.

    Args:
        arguments: Of `open_clip.CLIP`.

    Raises:
        ValueError: the arguments make towers of which that is not true.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if self.attn_mask is None or self.text_pool_type != "argmax":
            raise ValueError("the text tower is not causal, or its embedding is not that of the highest id")
        tower = self.visual
        if not isinstance(tower, VisionTransformer) or tower.pool_type != "tok" or tower.attn_pool is not None:
            raise ValueError(
                "the image tower is no vision transformer, or its embedding is not that of the first token"
            )
        if not all(map(_known, (*tower.transformer.resblocks, *self.transformer.resblocks))):
            raise ValueError("a tower has other blocks than self-attention and an MLP, without scales")

    def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embeddings of images.

        Args:
            image: (B, 3, S, S) float32, normalised as `image_transform` does it.
            normalize: Scale them to length 1.

        Returns:
            (B, E) float32.
        """
        tower = self.visual
        patches = tower.conv1(image).flatten(2).transpose(1, 2)
        first = tower.class_embedding.expand(len(image), 1, -1)
        x = tower.ln_pre(torch.cat([first, patches], dim=1) + tower.positional_embedding)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x = _evaluate(block, x)
        x = tower.ln_post(_evaluate(last, x, only=torch.zeros(1, dtype=torch.int64, device=x.device)))[:, 0]
        embeddings = x if tower.proj is None else x @ tower.proj
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embeddings of captions.

        Args:
            text: (B, L) int64 ids; the end of the text has the highest, and what follows it does not count.
            normalize: Scale them to length 1.

        Returns:
            (B, E) float32.
        """
        groups = (text[start : start + TOGETHER] for start in range(0, len(text), TOGETHER))
        embeddings = torch.cat([self._encode_together(captions) for captions in groups])
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    def _encode_together(self, text: torch.Tensor) -> torch.Tensor:
        lengths = text.argmax(dim=-1) + 1
        places = torch.arange(text.shape[1], device=text.device)
        caption, position = (places < lengths[:, None]).nonzero(as_tuple=True)
        x = (self.token_embedding(text[caption, position]) + self.positional_embedding[position])[None]
        # Which tokens (columns) a token (row) sees.
        seen = (caption[:, None] == caption) & (position[:, None] >= position)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = _evaluate(block, x, seen)
        ends = lengths.cumsum(dim=0) - 1
        embeddings: torch.Tensor = self.ln_final(_evaluate(last, x, seen[ends], only=ends))[0]
        if isinstance(self.text_projection, torch.nn.Linear):
            embeddings = self.text_projection(embeddings)
        elif self.text_projection is not None:
            embeddings = embeddings @ self.text_projection
        return embeddings


def _known(block: Any) -> bool:
    """Whether `_evaluate` is the block's function."""
    return (
        type(block) is ResidualAttentionBlock
        and type(block.ls_1) is type(block.ls_2) is torch.nn.Identity
        and block.attn.in_proj_bias is not None
    )


def _evaluate(
    block: Any, x: torch.Tensor, seen: torch.Tensor | None = None, only: torch.Tensor | None = None
) -> torch.Tensor:
    """What a block makes of its tokens: x + attention(norm(x)), and to that its MLP of the sum's norm.

    Args:
        block: open_clip's `ResidualAttentionBlock`.
        x: (B, N, W).
        seen: (T, N) bool, whether a token's query meets another's key; all do if None.
        only: (T,) int64, the tokens to evaluate the block for; all of them (T = N) if None.

    Returns:
        (B, T, W).
    """
    attention = block.attn
    width = x.shape[-1]
    normal = block.ln_1(x)
    if only is None:
        query, key, value = linear(normal, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    else:
        x = x[:, only]
        query = linear(normal[:, only], attention.in_proj_weight[:width], attention.in_proj_bias[:width])
        both = linear(normal, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        key, value = both.chunk(2, dim=-1)
    query, key, value = (
        part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
    x = x + linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
    wide, activation, narrow = block.mlp
    return x + linear(activation(linear(block.ln_2(x), wide.weight, wide.bias)), narrow.weight, narrow.bias)
