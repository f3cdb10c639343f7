"""How far a deep UNet's outputs are from another's: what judges a layer, and what the pruned UNet is trained by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.models.prompts import GUIDANCE_SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence


def output_loss(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Sum of relative squared errors of the noise, the guided noise and the three cached features; a scalar, 0 at best.

    The change of the network's output is LAPTOP-Diff's criterion ("output loss"), and that each term is divided by the
    square of the full network's own, so that none rules by its size, is its normalised distillation (Zhang et al. 2024,
    arXiv:2404.11098). Here the output is all that a deep step leaves behind: the features too, since a shallow step
    starts from them, and what guidance makes of both rows, since eight times their difference moves an image.

    Args:
        outputs: Of `DeepUnet`: noise (2B, 4, S, S), negative rows first, and the cached features.
        expected: Those of the full UNet, on the same inputs.
    """
    pairs = [*zip(outputs, expected, strict=True), (_guided(outputs[0]), _guided(expected[0]))]
    return torch.stack([_relative(one.float(), other.float()) for one, other in pairs]).sum()


def _relative(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().mean() / other.square().mean()


def _guided(noise: Tensor) -> Tensor:
    negative, positive = noise.float().chunk(2)
    return negative + GUIDANCE_SCALE * (positive - negative)
