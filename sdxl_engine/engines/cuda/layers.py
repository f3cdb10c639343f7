"""Layers of engine `cuda`: weights in the layout that kernels read, and who computes with them.

Activations are NHWC, `(B, H, W, C)` contiguous, or rows of channels, `(M, C)`. A convolution's bias, the time embedding
and the residual are not added by the convolution, which cuDNN would do in a pass of its own each; they stay in a
`Pending` that the next normalisation, which reads the tensor anyway, adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, quantise
from sdxl_engine.engines.cuda.kernels.geglu_gemm import pack_epilogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class Multiply(Protocol):
    """Computes matrix products: `Products`, or in tests what torch makes of them on a CPU."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        out: Tensor,
        bias: Tensor | None = None,
        *,
        residual: bool = False,
        scales: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`out = scales * (x @ weight.T) + bias`, plus `out` with a residual; sums in fp32.

        Args:
            x: (M, K) fp16 or fp8, contiguous.
            weight: (N, K) of the same dtype, contiguous.
            out: (M, N) fp16, contiguous.
            bias: (N,) fp16.
            residual: Whether `out` is added to.
            scales: With fp8, (1,) fp32 each: what `x` and `weight` are multiplied by.
        """
        ...

    def geglu(self, x: Tensor, weight: Tensor, epilogue: Tensor, out: Tensor) -> Tensor:
        """`out = value * gelu(gate)`, with value and gate from `x @ weight.T`.

        Args:
            x: (M, K) fp16 or fp8, contiguous.
            weight: (2D, K) of the same dtype, contiguous: values, then gates.
            epilogue: (4, D) fp32, see `pack_epilogue`.
            out: (M, D) fp16 or fp8, contiguous.
        """
        ...


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
    """`x @ weight.T + bias`, with fp16 results and fp32 sums; in fp8 where it has a scale.

    Args:
        multiply: Computes the product.
        weight: (N, K) fp16.
        bias: (N,) fp16, or None.
        scale: What the input is divided by to become fp8; None for a product in fp16.
        seen: (1,) fp32: takes the largest magnitude of all inputs; None where nothing is measured.

    Attributes:
        scale: (1,) fp32: for the kernel that writes the input; None where it is to be fp16.
    """

    def __init__(
        self,
        multiply: Multiply,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: float | None = None,
        seen: Tensor | None = None,
    ) -> None:
        self._multiply, self._bias, self._seen = multiply, bias, seen
        self.scale: Tensor | None = None
        self._scales: tuple[Tensor, Tensor] | None = None
        if scale is None:
            self._weight = weight.contiguous()
            return
        self._weight, factor = to_fp8(weight)
        self.scale = torch.full((1,), scale, device=weight.device)
        self._scales = self.scale, factor

    @property
    def width(self) -> int:
        """N."""
        return len(self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, N) fp16."""
        out = torch.empty(len(x), self.width, dtype=torch.float16, device=x.device)
        return self._multiply(self._taken(x), self._weight, out, self._bias, scales=self._scales)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add to `total`, (M, N) fp16, in place."""
        return self._multiply(self._taken(x), self._weight, total, self._bias, residual=True, scales=self._scales)

    def _taken(self, x: Tensor) -> Tensor:
        """The input as fp8, where it is to be and was not written so."""
        if self._seen is not None:
            torch.maximum(self._seen, torch.linalg.vector_norm(x, torch.inf).float(), out=self._seen)
        return quantise(x, self.scale) if self.scale is not None and x.dtype != E4M3 else x


class GegluLinear(Linear):
    """`value * gelu(gate)`, with value and gate by one `Linear`; arguments as there.

    Args:
        out_scale: What the result is divided by to become fp8; None for fp16.
    """

    def __init__(
        self,
        multiply: Multiply,
        weight: Tensor,
        bias: Tensor,
        scale: float | None,
        seen: Tensor | None,
        out_scale: Tensor | None,
    ) -> None:
        super().__init__(multiply, weight, bias, scale, seen)
        self._out_dtype = torch.float16 if out_scale is None else E4M3
        x_scale, w_scale = self._scales if self._scales is not None else (1.0, 1.0)
        self._epilogue = pack_epilogue(bias, w_scale, x_scale, 1.0 if out_scale is None else out_scale)

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, D) fp16 or fp8."""
        out = torch.empty(len(x), self.width // 2, dtype=self._out_dtype, device=x.device)
        return self._multiply.geglu(self._taken(x), self._weight, self._epilogue, out)


class Conv:
    """A convolution without its bias, by cuDNN, NHWC.

    Args:
        module: Its weights.
        scale: What the weights are multiplied by.
    """

    def __init__(self, module: nn.Conv2d, *, scale: float = 1.0) -> None:
        self._weight = (module.weight * scale).to(memory_format=torch.channels_last)
        self.bias = None if module.bias is None else module.bias * scale
        self._stride, self._padding = module.stride, module.padding

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) fp16 to (B, H', W', N) fp16."""
        out = F.conv2d(x.permute(0, 3, 1, 2), self._weight, None, self._stride, self._padding)
        return out.permute(0, 2, 3, 1).contiguous()


class Layers:
    """Makes the layers of one network, each in its precision.

    Args:
        multiply: Computes matrix products.
        root: The network, which knows its modules' names.
        scales: Of the inputs of the layers that are to run in fp8, by module name.
        seen: Takes the largest magnitude of every layer's inputs, by module name; None where nothing is measured.
    """

    def __init__(
        self,
        multiply: Multiply,
        root: nn.Module,
        scales: Mapping[str, float] | None = None,
        seen: dict[str, Tensor] | None = None,
    ) -> None:
        self._multiply = multiply
        self._names = {id(module): name for name, module in root.named_modules()}
        self._scales, self._seen = scales or {}, seen

    def linear(self, module: Any, weight: Tensor | None = None, bias: Tensor | None = None) -> Linear:
        """One with the precision of `module`.

        Args:
            module: Names the layer; where several read one input, the first of them.
            weight: In place of the module's.
            bias: The one to add, if any: the module's own is the caller's to give.
        """
        matrix = module.weight if weight is None else weight
        return Linear(self._multiply, matrix.flatten(1), bias, *self._measures(module, matrix))

    def geglu(self, module: Any, into: Linear) -> GegluLinear:
        """One with the precision of `module`, whose result `into` reads."""
        scale, seen = self._measures(module, module.weight)
        return GegluLinear(self._multiply, module.weight, module.bias, scale, seen, into.scale)

    def _measures(self, module: Any, weight: Tensor) -> tuple[float | None, Tensor | None]:
        """The scale of a layer's input, and what takes its largest magnitude."""
        name = self._names[id(module)]
        if self._seen is None:
            return self._scales.get(name), None
        return self._scales.get(name), self._seen.setdefault(name, torch.zeros(1, device=weight.device))


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor as fp8, and (1,) fp32 by which to multiply that: its largest magnitude becomes fp8's largest."""
    factor = (weight.abs().amax().float() / MOST).clamp(min=torch.finfo(torch.float32).tiny).reshape(1)
    return (weight.float() / factor).clamp(-MOST, MOST).to(E4M3), factor


def rows(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B*H*W, C), the same memory."""
    return x.reshape(-1, x.shape[-1])
