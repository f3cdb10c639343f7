"""What a picture shows, as class labels: the supervision of the metric networks.

The objects are taken in canonical order (left or top first), so the labels can be read from the picture alone.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdxl_engine.shapes.grammar import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES
from sdxl_engine.shapes.train.data import NO_RELATION, Pool

CLASSES = (len(BACKGROUNDS), 3, len(PLACES), *(2 * (len(SHAPES), len(COLOURS), len(SIZES))))
"""Background; axis; place of the first object; shape, colour and size of the first and of the second object."""


@functools.cache
def _places(device: torch.device) -> Tensor:
    """Centres of `PLACES`, (5, 2), once per device: a copy from the host cannot be captured in a CUDA graph."""
    return torch.tensor(list(PLACES.values()), device=device)


def labels(pool: Pool, rows: Tensor) -> Tensor:
    """(B, 9) int64 labels in the order of `CLASSES`; -1 where a picture has no second object."""
    scenes = pool.scenes[rows]
    place = torch.cdist(scenes.centre[:, 0], _places(rows.device)).argmin(dim=1)
    gone = (pool.axis[rows] == NO_RELATION)[:, None]
    things = torch.stack([scenes.shape, scenes.colour, scenes.size], dim=-1)
    second = things[:, 1].masked_fill(gone, -1)
    return torch.cat([torch.stack([scenes.background, pool.axis[rows], place], dim=1), things[:, 0], second], dim=1)


class AttributeHead(nn.Module):
    """Linear classifiers of every label on an embedding (B, width); used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classify = nn.Linear(width, sum(CLASSES))

    def forward(self, embedding: Tensor, wanted: Tensor) -> Tensor:
        """Mean cross-entropy over the labels, scalar."""
        logits = self.classify(embedding).float().split(CLASSES, dim=1)
        losses = [
            F.cross_entropy(one, label, ignore_index=-1, label_smoothing=0.05)
            for one, label in zip(logits, wanted.unbind(dim=1), strict=True)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def accuracy(self, embedding: Tensor, wanted: Tensor) -> float:
        """Share of samples with every label right."""
        right = torch.ones(len(wanted), dtype=torch.bool, device=wanted.device)
        for one, label in zip(self.classify(embedding).split(CLASSES, dim=1), wanted.unbind(dim=1), strict=True):
            right &= (one.argmax(dim=1) == label) | (label < 0)
        return float(right.float().mean())
