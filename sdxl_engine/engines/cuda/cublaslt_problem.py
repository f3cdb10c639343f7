"""A matrix product for cuBLASLt, and its descriptors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from sdxl_engine.engines.cuda.cublaslt_api import (
    ComputeType,
    DataType,
    Describes,
    Epilogue,
    Operation,
    Prefers,
)
from sdxl_engine.errors import UsageError

if TYPE_CHECKING:
    from sdxl_engine.engines.cuda.cublaslt_library import CublasLt

WORKSPACE = 64 << 20
"""Bytes per device, shared by all products there: they run one after another, on one stream at a time."""
ALIGNMENT = 16
"""Of every matrix, bias and scale, bytes; of a matrix cuBLASLt assumes 256 unless told."""

DTYPES = {"fp16": (torch.float16, DataType.R_16F), "fp8": (torch.float8_e4m3fn, DataType.R_8F_E4M3)}


@dataclass(frozen=True)
class GemmProblem:
    """out = a_scale * w_scale * (A @ W.T) + bias + residual; the scales, one fp32 number each, are for fp8.

    A is (M, K) and W is (N, K), both of `dtype`, out is (M, N) fp16, all contiguous; the sum is fp32. Kernels may round
    it to fp16 before they add the residual, as two calls do.

    Args:
        m, n, k: The sizes; for fp8, N and K must be multiples of 16, for fp16 of 8.
        dtype: Of A and W: `fp16` or `fp8` (float8_e4m3fn).
        bias: Whether a bias (N,) fp16 is added.
        residual: Whether to add to what `out` holds.
        fast_accumulation: fp8 only: sums within a tile in the tensor core's 22 bits instead of promoting them to fp32.
    """

    m: int
    n: int
    k: int
    dtype: Literal["fp16", "fp8"] = "fp16"
    bias: bool = False
    residual: bool = False
    fast_accumulation: bool = True

    def __post_init__(self) -> None:
        wrong = None
        least = ALIGNMENT // DTYPES[self.dtype][0].itemsize if self.dtype in DTYPES else 0
        if self.dtype not in DTYPES:
            wrong = f"dtype {self.dtype!r}", f"one of {', '.join(DTYPES)}"
        elif min(self.m, self.n, self.k) < 1 or self.n % max(least, 8) or self.k % least:
            wrong = f"M, N, K = {self.m}, {self.n}, {self.k}", f"N and K in multiples of {least}, M of at least 1"
        if wrong:
            raise UsageError("cuBLASLt has no such product", got=wrong[0], expected=wrong[1], source="GemmProblem")

    def __str__(self) -> str:
        extras = [name for name, on in (("bias", self.bias), ("residual", self.residual)) if on]
        if self.dtype == "fp8":
            extras += ["fast" if self.fast_accumulation else "exact"]
        return "-".join([f"m{self.m}-n{self.n}-k{self.k}-{self.dtype}", *extras])

    @property
    def scaled(self) -> bool:
        """Whether it takes `a_scale` and `w_scale`."""
        return self.dtype == "fp8"


class Descriptors:
    """The descriptors of a problem, which need no GPU.

    Column-major, as cuBLAS has it, a row-major matrix is its own transpose: out.T (N, M) = W (N, K) @ A.T (K, M). So
    cuBLAS's A is W, transposed, and its B is A.

    Args:
        library: cuBLASLt.
        problem: What is computed.

    Raises:
        EngineError: cuBLASLt refuses one.
    """

    def __init__(self, library: CublasLt, problem: GemmProblem) -> None:
        self.library, self.problem = library, problem
        self._made: list[tuple[str, int]] = []
        element = DTYPES[problem.dtype][1]
        m, n, k = problem.m, problem.n, problem.k
        self.product = self._create("MatmulDesc", ComputeType.COMPUTE_32F, DataType.R_32F)
        self.weight = self._create("MatrixLayout", element, k, n, k)
        self.activation = self._create("MatrixLayout", element, k, m, k)
        self.output = self._create("MatrixLayout", DataType.R_16F, n, m, n)
        self.preference = self._create("MatmulPreference")
        self._describe(Describes.TRANSA, ctypes.c_int32(Operation.OP_T))
        self._describe(Describes.TRANSB, ctypes.c_int32(Operation.OP_N))
        if problem.bias:
            self._describe(Describes.EPILOGUE, ctypes.c_int32(Epilogue.BIAS))
            self._describe(Describes.BIAS_DATA_TYPE, ctypes.c_int32(DataType.R_16F))
        if problem.scaled:
            self._describe(Describes.FAST_ACCUM, ctypes.c_int8(problem.fast_accumulation))
        self._prefer(Prefers.MAX_WORKSPACE_BYTES, ctypes.c_uint64(WORKSPACE))
        for matrix in "ABCD":
            self._prefer(Prefers[f"MIN_ALIGNMENT_{matrix}_BYTES"], ctypes.c_uint32(ALIGNMENT))

    def point(self, bias: int, a_scale: int, w_scale: int) -> None:
        """Set the device addresses that are part of the descriptor; 0 for none."""
        if self.problem.bias:
            self._describe(Describes.BIAS_POINTER, ctypes.c_void_p(bias))
        if self.problem.scaled:
            self._describe(Describes.A_SCALE_POINTER, ctypes.c_void_p(w_scale))
            self._describe(Describes.B_SCALE_POINTER, ctypes.c_void_p(a_scale))

    def read(self, attribute: Describes, kind: type[Any]) -> Any:
        """The value of an attribute of the product, of the ctypes type `kind`."""
        value, written = kind(), ctypes.c_size_t()
        self.library.call(
            "cublasLtMatmulDescGetAttribute",
            *(self.product, attribute, ctypes.byref(value), ctypes.sizeof(value), ctypes.byref(written)),
            about=f"{attribute.name} of {self.problem}",
        )
        return value.value

    def close(self) -> None:
        """Free them; more than once is harmless."""
        self.product = 0
        while self._made:
            kind, address = self._made.pop()
            self.library.call(f"cublasLt{kind}Destroy", address, about=self.problem)

    def __del__(self) -> None:
        for kind, address in getattr(self, "_made", []):
            getattr(self.library.functions, f"cublasLt{kind}Destroy")(address)

    def _create(self, kind: str, *arguments: int) -> int:
        made = ctypes.c_void_p()
        self.library.call(f"cublasLt{kind}Create", ctypes.byref(made), *arguments, about=self.problem)
        assert made.value is not None
        self._made.append((kind, made.value))
        return made.value

    def _describe(self, attribute: Describes, value: Any) -> None:
        self._set("MatmulDesc", self.product, attribute, value)

    def _prefer(self, attribute: Prefers, value: Any) -> None:
        self._set("MatmulPreference", self.preference, attribute, value)

    def _set(self, kind: str, descriptor: int, attribute: Describes | Prefers, value: Any) -> None:
        self.library.call(
            f"cublasLt{kind}SetAttribute",
            *(descriptor, attribute, ctypes.byref(value), ctypes.sizeof(value)),
            about=f"{attribute.name} of {self.problem}",
        )
