"""Compile the kernels that are bound by memory traffic for sm_90, which needs no GPU; print their registers as JSON."""

from __future__ import annotations

import json
import sys

import triton
from compile_geglu import usage
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sdxl_engine.engines.cuda.kernels.fp8 import MOST, _quantise_kernel
from sdxl_engine.engines.cuda.kernels.group_norm import _apply_kernel, _factors_kernel, _sum_kernel
from sdxl_engine.engines.cuda.kernels.pointwise import _add_up_kernel, _layer_norm_kernel
from sdxl_engine.engines.cuda.kernels.text_attention import _text_attention_kernel

HALF, SINGLE, NARROW, COUNT, REAL = "*fp16", "*fp32", "*fp8e4nv", "i32", "fp32"

# Signature in the order of the arguments, constants, warps: as the wrappers launch them for SDXL's widths.
KERNELS = {
    "sum": (
        _sum_kernel,
        [HALF, SINGLE, COUNT, HALF, SINGLE, COUNT, COUNT, COUNT, COUNT, COUNT],
        {"HAS_SHIFT": True, "HAS_RESIDUAL": True, "STORE": True, "BLOCK": 128, "TILE": 32},
        4,
    ),
    "factors": (
        _factors_kernel,
        [SINGLE, SINGLE, SINGLE, SINGLE, SINGLE, *[COUNT] * 6, REAL, COUNT, REAL],
        {"HAS_LATE": True, "CHUNKS": 16, "BLOCK": 64},
        4,
    ),
    "apply": (
        _apply_kernel,
        [HALF, SINGLE, NARROW, SINGLE, COUNT, COUNT, COUNT, COUNT],
        {"SILU": True, "FP8": True, "MOST": MOST, "BLOCK": 128, "TILE": 64},
        4,
    ),
    "layer_norm": (
        _layer_norm_kernel,
        [HALF, SINGLE, SINGLE, SINGLE, NARROW, SINGLE, COUNT, REAL],
        {"FP8": True, "MOST": MOST, "BLOCK": 1024, "REST": 256},
        1,
    ),
    "add_up": (
        _add_up_kernel,
        [HALF, SINGLE, COUNT, HALF, COUNT, COUNT],
        {"HAS_SHIFT": True, "HAS_RESIDUAL": True, "BLOCK": 512, "TILE": 8},
        4,
    ),
    "text_attention": (
        _text_attention_kernel,
        [HALF, HALF, NARROW, SINGLE, COUNT, COUNT, COUNT, COUNT, REAL],
        {"FP8": True, "MOST": MOST, "KEYS": 128, "WIDTH": 64, "TILE": 64, "ROUNDS": 4},
        4,
    ),
    "quantise": (_quantise_kernel, [HALF, NARROW, SINGLE, COUNT], {"MOST": MOST, "BLOCK": 4096}, 4),
}


def report(kernel, types, constants, warps):
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    signature = {name: signature[name] for name in kernel.arg_names}
    # Widths and addresses are multiples of 16; other numbers need not be.
    wide = {"channels", "total", "at", "own"}
    divisible = {
        (number,): [["tt.divisibility", 16]]
        for number, name in enumerate(kernel.arg_names)
        if name in wide or signature[name].startswith("*")
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    made = triton.compile(
        ASTSource(kernel, signature, values, divisible),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps},
    )
    ptx = made.asm["ptx"]
    return {**usage(made.asm["cubin"]), "wide_loads": "ld.global.v4.b32" in ptx, "shared": made.metadata.shared}


if __name__ == "__main__":
    json.dump({name: report(*kernel) for name, kernel in KERNELS.items()}, sys.stdout, indent=1)
