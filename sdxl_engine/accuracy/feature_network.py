"""The network whose features FID compares in the metric variant `shapes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

POOLED = 2
"""Side of the grid that the last map is averaged to; 2 keeps left apart from right and top from bottom."""

GROUP_WIDTH = 8
"""Channels per normalisation group."""


class FeatureNetwork(nn.Module):
    """Images to feature vectors, as Inception's pool3 layer does for the official FID, but small.

    Each stage halves the side: a 3x3 convolution of stride 2, group normalisation, SiLU. The last map is
    averaged to a 2x2 grid and projected. The grid keeps coarse position, which a global average would lose
    (a red circle left of a blue square must not look like a blue square left of a red circle). Group
    normalisation does not look at other images, so features do not depend on the batch, in training or in
    evaluation. The projection has no activation after it: FID models the features as a Gaussian.

    About 0.13 million parameters with four stages of 24, 48, 72 and 96 channels and 64 features.

    Args:
        channels: Output channels of each stage, multiples of 8; four stages for 64x64 images.
        dims: Length of the feature vector.

    Raises:
        ValueError: there is no stage, or a stage's channels are not a multiple of 8.
    """

    def __init__(self, channels: Sequence[int], dims: int) -> None:
        super().__init__()
        if not channels or any(width < GROUP_WIDTH or width % GROUP_WIDTH for width in channels):
            raise ValueError(f"channels are multiples of {GROUP_WIDTH}, at least one; got {list(channels)}")
        self.dims = dims
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    # The normalisation that follows has a bias of its own.
                    nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1, bias=False),
                    nn.GroupNorm(wide // GROUP_WIDTH, wide),
                    nn.SiLU(),
                )
                for narrow, wide in zip((3, *channels[:-1]), channels, strict=True)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(POOLED)
        self.project = nn.Linear(channels[-1] * POOLED * POOLED, dims)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of a batch of images.

        Args:
            images: (B, 3, S, S) float32 in [-1, 1].

        Returns:
            (B, dims) float32, unbounded.
        """
        features: torch.Tensor = self.project(self.pool(self.stages(images)).flatten(1))
        return features
