"""The matrix products of an engine, by cuBLASLt and a kernel of ours: one plan per problem, the fastest there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from sdxl_engine.engines.cuda.cublaslt import Matmul
from sdxl_engine.engines.cuda.cublaslt_problem import GemmProblem
from sdxl_engine.engines.cuda.kernels.geglu_gemm import GegluGemm, GegluProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


Plan = TypeVar("Plan", Matmul, GegluGemm)
_NAMES: dict[torch.dtype, Literal["fp16", "fp8"]] = {torch.float16: "fp16", torch.float8_e4m3fn: "fp8"}


class Products:
    """See `sdxl_engine.engines.cuda.layers.Multiply`.

    A problem that comes for the first time is tuned, which takes a moment and cannot happen in a capture: draw once
    before one.

    Args:
        device: A GPU.
        choices: Of an earlier `choices`: algorithms that need no tuning.
    """

    def __init__(self, device: torch.device, choices: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._device, self._choices = device, choices or {}
        self._plans: dict[GemmProblem, Matmul] = {}
        self._fused: dict[GegluProblem, GegluGemm] = {}

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
        """See `Multiply`."""
        problem = GemmProblem(
            m=x.shape[0],
            n=weight.shape[0],
            k=x.shape[1],
            dtype="fp16" if scales is None else "fp8",
            bias=bias is not None,
            residual=residual,
            scaling="none" if scales is None else "tensor",
        )
        plan = self._plans.get(problem) or self._planned(problem)
        x_scale, w_scale = scales or (None, None)
        return plan(x, weight, out, bias=bias, a_scale=x_scale, w_scale=w_scale)

    def geglu(self, x: Tensor, weight: Tensor, epilogue: Tensor, out: Tensor) -> Tensor:
        """See `Multiply.geglu`."""
        problem = GegluProblem(
            m=x.shape[0], d=out.shape[1], k=x.shape[1], dtype=_NAMES[x.dtype], out=_NAMES[out.dtype]
        )
        plan = self._fused.get(problem)
        if plan is None:
            plan = self._fused[problem] = self._chosen(GegluGemm(problem, self._device))
        return plan(x, weight, epilogue, out)

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        """The choices of all problems met, as JSON."""
        return {str(plan.problem): plan.choice for plan in (*self._plans.values(), *self._fused.values())}

    def close(self) -> None:
        """Free the plans."""
        for plan in self._plans.values():
            plan.close()
        self._plans.clear()
        self._fused.clear()

    def _planned(self, problem: GemmProblem) -> Matmul:
        self._plans[problem] = self._chosen(Matmul(problem, self._device))
        return self._plans[problem]

    def _chosen(self, plan: Plan) -> Plan:
        if not plan.use(self._choices.get(str(plan.problem), {})):
            plan.tune()
        return plan
