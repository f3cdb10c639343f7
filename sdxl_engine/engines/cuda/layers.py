"""Layers of engine `cuda`: weights in the layout that kernels read, and who computes with them.

Activations are NHWC, `(B, H, W, C)` contiguous, or rows of channels, `(M, C)`. A convolution's bias, the time embedding
and the residual are not added by the convolution, which cuDNN would do in a pass of its own each; they stay in a
`Pending` that the next normalisation, which reads the tensor anyway, adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sdxl_engine.engines.cuda.kernels.conv_weights import pack_conv3x3, pack_upsample_conv3x3
from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST, quantise
from sdxl_engine.engines.cuda.kernels.geglu_gemm import pack_epilogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from sdxl_engine.engines.cuda.kernels.conv_weights import ConvWeights


ALIGNMENT = 16
"""Channels of an fp8 layer come in multiples of it: its rows must begin at multiples of 16 bytes."""


class Compute(Protocol):
    """Computes products and convolutions: `Computing`, or in tests what torch makes of them on a CPU."""

    def multiply(
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

    def convolve(
        self,
        x: Tensor,
        weights: ConvWeights,
        *,
        x_scale: Tensor | None = None,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """A 3x3 convolution of stride 1, of the upsampled input where the weights are packed for that; see `conv3x3`.

        Returns:
            (B, H, W, N) or (B, 2H, 2W, N) fp16.
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
        compute: Computes the product.
        weight: (N, K) fp16.
        bias: (N,) fp16, or None.
        scale: What the input is divided by to become fp8; None for a product in fp16.
        seen: (1,) fp32: takes the largest magnitude of all inputs; None where nothing is measured.

    Attributes:
        scale: (1,) fp32: for the kernel that writes the input; None where it is to be fp16.
    """

    def __init__(
        self,
        compute: Compute,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: float | None = None,
        seen: Tensor | None = None,
    ) -> None:
        self._compute, self._bias, self._seen = compute, bias, seen
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
        return self._compute.multiply(self._taken(x), self._weight, out, self._bias, scales=self._scales)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add to `total`, (M, N) fp16, in place."""
        return self._compute.multiply(
            self._taken(x), self._weight, total, self._bias, residual=True, scales=self._scales
        )

    def _taken(self, x: Tensor) -> Tensor:
        """The input as fp8, where it is to be and was not written so."""
        note(self._seen, x)
        return quantise(x, self.scale) if self.scale is not None and x.dtype != E4M3 else x


class GegluLinear(Linear):
    """`value * gelu(gate)`, with value and gate by one `Linear`; arguments as there.

    Args:
        out_scale: What the result is divided by to become fp8; None for fp16.
    """

    def __init__(
        self,
        compute: Compute,
        weight: Tensor,
        bias: Tensor,
        scale: float | None,
        seen: Tensor | None,
        out_scale: Tensor | None,
    ) -> None:
        super().__init__(compute, weight, bias, scale, seen)
        self._out_dtype = torch.float16 if out_scale is None else E4M3
        x_scale, w_scale = self._scales if self._scales is not None else (1.0, 1.0)
        self._epilogue = pack_epilogue(bias, w_scale, x_scale, 1.0 if out_scale is None else out_scale)

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, D) fp16 or fp8."""
        out = torch.empty(len(x), self.width // 2, dtype=self._out_dtype, device=x.device)
        return self._compute.geglu(self._taken(x), self._weight, self._epilogue, out)


class Conv:
    """A convolution by cuDNN, NHWC, in fp16. Its bias and what else is added to it stay pending.

    Args:
        module: Its weights.
        factor: What the weights and the bias are multiplied by.
        seen: (1,) fp32: takes the largest magnitude of all inputs; None where nothing is measured.

    Attributes:
        bias: (N,) fp16, which `__call__` leaves out.
        scale: As `Linear.scale`; None here.
    """

    scale: Tensor | None = None

    def __init__(self, module: nn.Conv2d, factor: float = 1.0, seen: Tensor | None = None) -> None:
        self._weight = (module.weight * factor).to(memory_format=torch.channels_last)
        self.bias = None if module.bias is None else module.bias * factor
        self._stride, self._padding, self._seen = module.stride, module.padding, seen

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) fp16 to (B, H', W', N) fp16."""
        note(self._seen, x)
        out = F.conv2d(x.permute(0, 3, 1, 2), self._weight, None, self._stride, self._padding)
        return out.permute(0, 2, 3, 1).contiguous()

    def plus(self, x: Tensor, bias: Tensor, residual: Tensor) -> Pending | Tensor:
        """The convolution, a bias and a residual."""
        return Pending(self(x), bias, residual)


class Fp8Conv:
    """A 3x3 convolution of stride 1 by our kernel, in fp8.

    Args:
        compute: Computes it.
        module: Its weights.
        factor: What the weights and the bias are multiplied by.
        scale: What the input is divided by to become fp8.

    Attributes:
        bias: (N,) fp16, which `__call__` leaves out.
        scale: (1,) fp32: for the kernel that writes the input.
    """

    def __init__(self, compute: Compute, module: nn.Conv2d, factor: float, scale: float) -> None:
        self._compute = compute
        self._weights = pack_conv3x3(module.weight * factor)
        self.bias = None if module.bias is None else module.bias * factor
        self.scale = torch.full((1,), scale, device=module.weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) fp8 to (B, H, W, N) fp16."""
        return self._compute.convolve(x, self._weights, x_scale=self.scale)

    def plus(self, x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        """The convolution, a bias (N,) fp32 and a residual."""
        return self._compute.convolve(x, self._weights, x_scale=self.scale, bias=bias, residual=residual)


class Upsample:
    """Nearest-2x upsampling and a 3x3 convolution, with its bias, as four 2x2 convolutions of the small map.

    Args:
        compute: Computes it.
        module: Its weights.
        factor: What the bias is multiplied by; what the input holds is multiplied by it already.
        scale: What the input is divided by to become fp8; None for fp16.
        seen: (1,) fp32: takes the largest magnitude of all inputs; None where nothing is measured.
    """

    def __init__(
        self, compute: Compute, module: nn.Conv2d, factor: float, scale: float | None, seen: Tensor | None
    ) -> None:
        self._compute, self._seen = compute, seen
        self._weights = pack_upsample_conv3x3(module.weight, torch.float16 if scale is None else E4M3)
        assert module.bias is not None
        self._bias = module.bias.float() * factor
        self._scale = None if scale is None else torch.full((1,), scale, device=module.weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) fp16 to (B, 2H, 2W, N) fp16."""
        note(self._seen, x)
        small = x if self._scale is None else quantise(x, self._scale)
        return self._compute.convolve(small, self._weights, x_scale=self._scale, bias=self._bias)


class Layers:
    """Makes the layers of one network, each in its precision.

    Args:
        compute: Computes matrix products.
        root: The network, which knows its modules' names.
        scales: Of the inputs of the layers that are to run in fp8, by module name.
        seen: Takes the largest magnitude of every layer's inputs, by module name; None where nothing is measured.
    """

    def __init__(
        self,
        compute: Compute,
        root: nn.Module,
        scales: Mapping[str, float] | None = None,
        seen: dict[str, Tensor] | None = None,
    ) -> None:
        self._compute = compute
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
        return Linear(self._compute, matrix.flatten(1), bias, *self._measures(module, matrix))

    def geglu(self, module: Any, into: Linear) -> GegluLinear:
        """One with the precision of `module`, whose result `into` reads."""
        scale, seen = self._measures(module, module.weight)
        return GegluLinear(self._compute, module.weight, module.bias, scale, seen, into.scale)

    def conv(self, module: nn.Conv2d, factor: float = 1.0) -> Conv | Fp8Conv:
        """One with the precision of `module`; `factor` multiplies its weights and its bias."""
        scale, seen = self._measures(module, module.weight)
        if scale is None or module.in_channels % ALIGNMENT or module.out_channels % ALIGNMENT:
            return Conv(module, factor, seen)
        return Fp8Conv(self._compute, module, factor, scale)

    def upsample(self, module: nn.Conv2d, factor: float = 1.0) -> Upsample:
        """One with the precision of `module`; `factor` multiplies its bias."""
        return Upsample(self._compute, module, factor, *self._measures(module, module.weight))

    def _measures(self, module: Any, weight: Tensor) -> tuple[float | None, Tensor | None]:
        """The scale of a layer's input, and what takes its largest magnitude."""
        name = self._names[id(module)]
        if self._seen is None:
            return self._scales.get(name), None
        return self._scales.get(name), self._seen.setdefault(name, torch.zeros(1, device=weight.device))


def note(seen: Tensor | None, x: Tensor) -> None:
    """Let a running maximum take the largest magnitude of a tensor."""
    if seen is not None:
        torch.maximum(seen, torch.linalg.vector_norm(x, torch.inf).float(), out=seen)


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor as fp8, and (1,) fp32 by which to multiply that: its largest magnitude becomes fp8's largest."""
    factor = (weight.abs().amax().float() / MOST).clamp(min=torch.finfo(torch.float32).tiny).reshape(1)
    return (weight.float() / factor).clamp(-MOST, MOST).to(E4M3), factor


def rows(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B*H*W, C), the same memory."""
    return x.reshape(-1, x.shape[-1])
