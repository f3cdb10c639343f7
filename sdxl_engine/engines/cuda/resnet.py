"""The residual block of the UNet and of the decoder (diffusers' ResnetBlock2D), in two halves.

The first half, up to the first convolution, does not depend on the time embedding, which diffusers adds after it. So
where a block's inputs are cached features, as in the outermost up block of a shallow step, its first half has been
computed by the deep step already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.cuda.kernels.group_norm import group_norm
from sdxl_engine.engines.cuda.layers import Norm, Pending, rows

if TYPE_CHECKING:
    from torch import Tensor

    from sdxl_engine.engines.cuda.layers import Layers, Linear


@dataclass(frozen=True)
class Half:
    """What the first half of a block leaves to the second.

    Args:
        hidden: (B, H, W, N) fp16: the first convolution's result without bias and time embedding.
        residual: (B, H, W, N) fp16: the input, through the shortcut where there is one, without its bias.
    """

    hidden: Tensor
    residual: Tensor


class Resnet:
    """One residual block.

    Args:
        layers: Makes its layers.
        module: Its weights.
        entering: Channels of the first of two inputs that the block reads one after the other, of a block that has a
            skip connection; None for one that has not.
        scale: What the residual stream is multiplied by, compared with the module's: a power of two that keeps it in
            fp16's range. Normalisations undo it, so all else is as it was.
    """

    def __init__(self, layers: Layers, module: Any, entering: int | None = None, *, scale: float = 1.0) -> None:
        self._norm1, self._norm2 = Norm.of(module.norm1, scale=scale), Norm.of(module.norm2, scale=scale)
        # What the first convolution gives may leave the range as well; the second norm undoes the scale there.
        self._conv1, self._conv2 = layers.conv(module.conv1, scale), layers.conv(module.conv2, scale)
        self.conv1_bias = module.conv1.bias * scale
        self._shortcuts: list[Linear] = []
        bias = module.conv2.bias * scale
        if module.conv_shortcut is not None:
            shortcut = module.conv_shortcut
            weight = shortcut.weight
            parts = [weight] if entering is None else [weight[:, :entering], weight[:, entering:]]
            self._shortcuts = [layers.linear(shortcut, part) for part in parts]
            bias = bias + shortcut.bias * scale
        self._bias = bias.float()

    def start(self, x: Tensor | Pending, skip: Tensor | None = None) -> Half:
        """The first half.

        Args:
            x: (B, H, W, C) fp16.
            skip: (B, H, W, C') fp16: its channels come after those of `x`.
        """
        normed, x = group_norm(x, self._norm1, skip, silu=True, scale=self._conv1.scale)
        hidden = self._conv1(normed)
        if not self._shortcuts:
            return Half(hidden, x)
        residual = self._shortcuts[0](rows(x))
        if skip is not None:
            self._shortcuts[1].add_to(residual, rows(skip))
        return Half(hidden, residual.view(*x.shape[:-1], -1))

    def finish(self, half: Half, shift: Tensor | None) -> Pending | Tensor:
        """The second half.

        Args:
            half: Of the first.
            shift: (B, N) or (N,): bias of the first convolution, and time embedding.

        Returns:
            The sum; `half` is left as it is.
        """
        normed, _ = group_norm(Pending(half.hidden, shift), self._norm2, silu=True, keep=False, scale=self._conv2.scale)
        return self._conv2.plus(normed, self._bias, half.residual)

    def __call__(self, x: Tensor | Pending, shift: Tensor | None, skip: Tensor | None = None) -> Pending | Tensor:
        """Both halves."""
        return self.finish(self.start(x, skip), shift)
