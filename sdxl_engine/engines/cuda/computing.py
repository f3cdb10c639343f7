"""The products and convolutions of an engine: cuBLASLt or a kernel of ours, in the way that is fastest here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from sdxl_engine.engines.cuda.cublaslt import Matmul
from sdxl_engine.engines.cuda.cublaslt_problem import GemmProblem
from sdxl_engine.engines.cuda.kernels.conv3x3 import CONFIGURATIONS, conv3x3, is_tuned, tune_conv3x3, valid_choices
from sdxl_engine.engines.cuda.kernels.geglu_gemm import GegluGemm, GegluProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sdxl_engine.engines.cuda.kernels.conv_weights import ConvWeights


Plan = TypeVar("Plan", Matmul, GegluGemm)
LEAST_TUNED = 2e10
"""Operations of the smallest problem that is tuned: some 20 to 30 microseconds on an H100."""
_CONVOLUTIONS = "conv3x3"
_NAMES: dict[torch.dtype, Literal["fp16", "fp8"]] = {torch.float16: "fp16", torch.float8_e4m3fn: "fp8"}


class Computing:
    """See `sdxl_engine.engines.cuda.layers.Compute`.

    A large problem that comes for the first time is tuned, which takes a moment and cannot happen in a capture: draw
    once before one. Small ones take what the library proposes.

    Args:
        device: A GPU.
        choices: Of an earlier `choices`: algorithms that need no tuning.

    Raises:
        EngineError: A convolution's configuration among the choices is none of the kernel's.
    """

    def __init__(self, device: torch.device, choices: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._device, self._choices = torch.empty(0, device=device).device, dict(choices or {})
        CONFIGURATIONS.chosen(self._device).update(valid_choices(self._choices.pop(_CONVOLUTIONS, {})))
        self._plans: dict[GemmProblem, Matmul] = {}
        self._fused: dict[GegluProblem, GegluGemm] = {}

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
        """See `Compute.multiply`."""
        problem = GemmProblem(
            m=x.shape[0],
            n=weight.shape[0],
            k=x.shape[1],
            dtype="fp16" if scales is None else "fp8",
            bias=bias is not None,
            residual=residual,
        )
        plan = self._plans.get(problem) or self._planned(problem)
        x_scale, w_scale = scales or (None, None)
        return plan(x, weight, out, bias=bias, a_scale=x_scale, w_scale=w_scale)

    def geglu(self, x: Tensor, weight: Tensor, epilogue: Tensor, out: Tensor) -> Tensor:
        """See `Compute.geglu`."""
        problem = GegluProblem(m=x.shape[0], d=out.shape[1], k=x.shape[1], dtype=_NAMES[x.dtype], out=_NAMES[out.dtype])
        plan = self._fused.get(problem)
        if plan is None:
            operations = 4 * problem.m * problem.d * problem.k
            plan = self._fused[problem] = self._chosen(GegluGemm(problem, self._device), operations)
        return plan(x, weight, epilogue, out)

    def convolve(
        self,
        x: Tensor,
        weights: ConvWeights,
        *,
        x_scale: Tensor | None = None,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """See `Compute.convolve`."""
        operations = 2 * x.shape[:3].numel() * weights.weight.numel()
        if operations >= LEAST_TUNED and not is_tuned(x, weights):
            tune_conv3x3(x, weights, x_scale=x_scale, bias=bias, residual=residual)
        return conv3x3(x, weights, x_scale=x_scale, bias=bias, residual=residual)

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        """The choices of all problems met, as JSON."""
        plans: list[Matmul | GegluGemm] = [*self._plans.values(), *self._fused.values()]
        return {str(plan.problem): plan.choice for plan in plans} | {_CONVOLUTIONS: CONFIGURATIONS.chosen(self._device)}

    def close(self) -> None:
        """Free the plans."""
        for plan in self._plans.values():
            plan.close()
        self._plans.clear()
        self._fused.clear()

    def _planned(self, problem: GemmProblem) -> Matmul:
        operations = 2 * problem.m * problem.n * problem.k
        self._plans[problem] = self._chosen(Matmul(problem, self._device), operations)
        return self._plans[problem]

    def _chosen(self, plan: Plan, operations: int) -> Plan:
        if not plan.use(self._choices.get(str(plan.problem), {})) and operations >= LEAST_TUNED:
            plan.tune()
        return plan
