"""Layers of engine `cuda`: weights in the layout its kernels read, and the one call each of them makes.

Activations are NHWC, `(B, H, W, C)` contiguous, or rows of channels, `(M, C)`. A convolution's bias, the time embedding
and the residual are not added by the convolution, which cuDNN would do in a pass of its own each; they stay in a
`Pending` that the next normalisation, which reads the tensor anyway, adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a GroupNorm or LayerNorm.

    Args:
        weight: (C,) fp32.
        bias: (C,) fp32.
        eps: Added to the variance.
        groups: Of a GroupNorm.
    """

    weight: Tensor
    bias: Tensor
    eps: float
    groups: int = 1

    @classmethod
    def of(cls, module: Any, *, scale: float = 1.0) -> Norm:
        """From a torch module.

        Args:
            module: `nn.GroupNorm` or `nn.LayerNorm`.
            scale: What its input is multiplied by, compared with the module's: `eps` follows it squared, so that the
                result is the same.
        """
        return cls(module.weight.float(), module.bias.float(), module.eps * scale**2, getattr(module, "num_groups", 1))


@dataclass(frozen=True)
class Pending:
    """The sum `value + shift + residual`, not yet added up.

    Args:
        value: (B, H, W, C) fp16.
        shift: (C,) or (B, C) fp16 or fp32, or None.
        residual: Like `value`, or None.
    """

    value: Tensor
    shift: Tensor | None = None
    residual: Tensor | None = None


class Linear:
    """`x @ weight.T + bias` in fp16 with fp32 accumulation.

    Args:
        weight: (N, K) fp16.
        bias: (N,) fp16, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) fp16 to (M, N) fp16."""
        return F.linear(x, self.weight, self.bias)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """`total += x @ weight.T + bias`, in place."""
        total.addmm_(x, self.weight.t())
        return total if self.bias is None else total.add_(self.bias)


class Conv:
    """A convolution without its bias, by cuDNN, NHWC.

    Args:
        module: Its weights.
        scale: What the weights are multiplied by.
    """

    def __init__(self, module: nn.Conv2d, *, scale: float = 1.0) -> None:
        self.weight = (module.weight * scale).to(memory_format=torch.channels_last)
        self.bias = None if module.bias is None else module.bias * scale
        self.stride, self.padding = module.stride, module.padding

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) fp16 to (B, H', W', N) fp16."""
        out = F.conv2d(x.permute(0, 3, 1, 2), self.weight, None, self.stride, self.padding)
        return out.permute(0, 2, 3, 1).contiguous()


def rows(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B*H*W, C), the same memory."""
    return x.reshape(-1, x.shape[-1])
