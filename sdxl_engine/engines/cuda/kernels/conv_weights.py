"""The weights of 3x3 convolutions as the implicit GEMM of `conv3x3.py` reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdxl_engine.engines.cuda.kernels.fp8 import E4M3, MOST

TAPS = 9
PHASE_TAPS = 4
PHASES = 4


@dataclass(frozen=True)
class ConvWeights:
    """One convolution's weights, packed.

    Args:
        weight: (phases * N, taps * C) float8_e4m3fn or float16; row p*N + n holds, tap by tap, the C weights of output
            channel n. Taps go row by row over the kernel. C is the innermost, as FP8 tensor cores need both operands.
        scale: (phases * N,) float32: what a row's FP8 weights are to be multiplied by. None for float16.
        in_channels: C.
        out_channels: N.
        phases: 1 for a 3x3 convolution of 9 taps; 4 for one after nearest-2x upsampling, of 4 taps each.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    in_channels: int
    out_channels: int
    phases: int

    @property
    def taps(self) -> int:
        """Weights per pair of channels."""
        return TAPS if self.phases == 1 else PHASE_TAPS


def pack_conv3x3(weight: torch.Tensor, dtype: torch.dtype = E4M3) -> ConvWeights:
    """Pack a 3x3 convolution of stride 1 and padding 1.

    Args:
        weight: (N, C, 3, 3), any floating type; C a multiple of 16, N of 8.
        dtype: float8_e4m3fn, with one scale per output channel that takes its largest weight to 448, or float16.

    Raises:
        ValueError: Another shape or type.
    """
    _need_weight(weight)
    taps = weight.float().permute(0, 2, 3, 1)
    return _packed(taps.reshape(weight.shape[0], -1), weight, 1, dtype)


def pack_upsample_conv3x3(weight: torch.Tensor, dtype: torch.dtype = E4M3) -> ConvWeights:
    """Pack nearest-2x upsampling and the 3x3 convolution after it as four 2x2 convolutions of the small map.

    Output pixel (2y + p, 2x + q) sees only 2x2 different pixels: rows y - 1 + p and y + p, columns x - 1 + q and x + q.
    Weights that fall on the same pixel are added in float32, before they are rounded.

    Args:
        weight: (N, C, 3, 3), any floating type; C a multiple of 16, N of 8.
        dtype: float8_e4m3fn, with one scale per phase and output channel, or float16.

    Raises:
        ValueError: Another shape or type.
    """
    _need_weight(weight)
    taps = weight.float().permute(0, 2, 3, 1)
    phases = [
        _halve(_halve(taps, row, dim=1), column, dim=2).reshape(weight.shape[0], -1)
        for row in (0, 1)
        for column in (0, 1)
    ]
    return _packed(torch.cat(phases), weight, PHASES, dtype)


def _halve(taps: torch.Tensor, phase: int, dim: int) -> torch.Tensor:
    """Three taps along `dim` become the two that an output pixel of this phase has."""
    first, second, third = taps.unbind(dim)
    return torch.stack([first, second + third] if phase == 0 else [first + second, third], dim)


def _packed(rows: torch.Tensor, weight: torch.Tensor, phases: int, dtype: torch.dtype) -> ConvWeights:
    scale = None
    if dtype == E4M3:
        scale = (rows.abs().amax(1) / MOST).clamp(min=torch.finfo(torch.float32).tiny)
        rows = (rows / scale[:, None]).clamp(-MOST, MOST)
    elif dtype != torch.float16:
        raise ValueError(f"weights cannot be packed as {dtype}, expected {E4M3} or torch.float16")
    return ConvWeights(rows.to(dtype).contiguous(), scale, weight.shape[1], weight.shape[0], phases)


def _need_weight(weight: torch.Tensor) -> None:
    if weight.dim() != 4 or weight.shape[2:] != (3, 3) or weight.shape[1] % 16 or weight.shape[0] % 8:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (N, C, 3, 3) with N a multiple of 8 and C of 16"
        )
