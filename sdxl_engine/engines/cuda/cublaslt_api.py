"""The C declarations of cuBLASLt that a matrix product needs, for ctypes.

The values are those of `cublasLt.h`, `cublas_api.h` and `library_types.h`; a test compares them with the headers where
they are installed.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Any


class Status(IntEnum):
    """`cublasStatus_t`."""

    SUCCESS = 0
    NOT_INITIALIZED = 1
    ALLOC_FAILED = 3
    INVALID_VALUE = 7
    ARCH_MISMATCH = 8
    MAPPING_ERROR = 11
    EXECUTION_FAILED = 13
    INTERNAL_ERROR = 14
    NOT_SUPPORTED = 15
    LICENSE_ERROR = 16


class DataType(IntEnum):
    """`cudaDataType_t`: of float32, float16 and float8_e4m3fn."""

    R_32F = 0
    R_16F = 2
    R_8F_E4M3 = 28


class ComputeType(IntEnum):
    """`cublasComputeType_t`: float32 sums without down-conversion of inputs."""

    COMPUTE_32F = 68


class Operation(IntEnum):
    """`cublasOperation_t`."""

    OP_N = 0
    OP_T = 1


class Describes(IntEnum):
    """`cublasLtMatmulDescAttributes_t`, without its CUBLASLT_MATMUL_DESC_."""

    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    A_SCALE_POINTER = 17
    B_SCALE_POINTER = 18
    FAST_ACCUM = 25
    BIAS_DATA_TYPE = 26


class Epilogue(IntEnum):
    """`cublasLtEpilogue_t`, without its CUBLASLT_EPILOGUE_."""

    BIAS = 4


class Prefers(IntEnum):
    """`cublasLtMatmulPreferenceAttributes_t`, without its CUBLASLT_MATMUL_PREF_."""

    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class Algorithm(ctypes.Structure):
    """`cublasLtMatmulAlgo_t`: 64 opaque bytes that may be copied and kept for the same library version and GPU."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class Heuristic(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`: an algorithm, the workspace it needs in bytes, and whether it can run."""

    _fields_ = (
        ("algorithm", Algorithm),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
PROTOTYPES: dict[str, list[Any]] = {
    "cublasLtCreate": [_POINTER],
    "cublasLtDestroy": [_POINTER],
    "cublasLtMatmulDescCreate": [_POINTER, _INT, _INT],
    "cublasLtMatmulDescDestroy": [_POINTER],
    "cublasLtMatmulDescSetAttribute": [_POINTER, _INT, _POINTER, _SIZE],
    "cublasLtMatmulDescGetAttribute": [_POINTER, _INT, _POINTER, _SIZE, _POINTER],
    "cublasLtMatrixLayoutCreate": [_POINTER, _INT, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64],
    "cublasLtMatrixLayoutDestroy": [_POINTER],
    "cublasLtMatmulPreferenceCreate": [_POINTER],
    "cublasLtMatmulPreferenceDestroy": [_POINTER],
    "cublasLtMatmulPreferenceSetAttribute": [_POINTER, _INT, _POINTER, _SIZE],
    "cublasLtMatmulAlgoGetHeuristic": [*[_POINTER] * 7, _INT, _POINTER, _POINTER],
    "cublasLtMatmulAlgoCheck": [_POINTER] * 8,
    # handle, description, alpha, A, its layout, B, its, beta, C, its, D, its, algorithm, workspace, its bytes, stream
    "cublasLtMatmul": [*[_POINTER] * 14, _SIZE, _POINTER],
}
"""Types of the arguments; all of these return a `cublasStatus_t`."""
