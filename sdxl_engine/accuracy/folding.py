"""Inception with each batch normalisation folded into the convolution before it."""

from __future__ import annotations

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d


def fold_batch_norms(network: torch.nn.Module) -> None:
    """Fold in place, in float64, so that each weight is rounded to float32 once.

    In evaluation a batch normalisation scales and shifts each channel by constants: the function stays the same,
    in one pass over memory where there were two.

    Args:
        network: float32, with weights, in evaluation mode; of torchvision's `BasicConv2d`: convolution,
            normalisation, ReLU.
    """
    for block in network.modules():
        if isinstance(block, BasicConv2d):
            block.conv = fuse_conv_bn_eval(block.conv.double(), block.bn.double()).float()
            block.bn = torch.nn.Identity()
