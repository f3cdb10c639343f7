"""The matrix products of an engine, by cuBLASLt: one plan per problem, the fastest of its algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.cuda.cublaslt import Matmul
from sdxl_engine.engines.cuda.cublaslt_problem import GemmProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


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

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        out: Tensor,
        bias: Tensor | None = None,
        *,
        residual: bool = False,
        scale: Tensor | None = None,
    ) -> Tensor:
        """See `Multiply`."""
        problem = GemmProblem(
            m=x.shape[0],
            n=weight.shape[0],
            k=x.shape[1],
            dtype="fp16" if scale is None else "fp8",
            bias=bias is not None,
            residual=residual,
            scaling="none" if scale is None else "channel",
        )
        plan = self._plans.get(problem) or self._planned(problem)
        return plan(x, weight, out, bias=bias, w_scale=scale)

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        """The algorithms of all problems met, as JSON."""
        return {str(problem): plan.choice for problem, plan in self._plans.items()}

    def close(self) -> None:
        """Free the plans."""
        for plan in self._plans.values():
            plan.close()
        self._plans.clear()

    def _planned(self, problem: GemmProblem) -> Matmul:
        plan = Matmul(problem, self._device)
        if not plan.use(self._choices.get(str(problem), {})):
            plan.tune()
        self._plans[problem] = plan
        return plan
