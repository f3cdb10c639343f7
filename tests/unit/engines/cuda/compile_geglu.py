"""Compile the GEGLU product for sm_90, which needs no GPU, and print what came out as JSON; run by a test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sdxl_engine.engines.cuda.kernels.geglu_gemm import CANDIDATES, GegluProblem, geglu_gemm_kernel

TYPES = {"fp8": "fp8e4nv", "fp16": "fp16"}


def compiled(problem, way):
    width, out = TYPES[problem.dtype], TYPES[problem.out]
    block_k = way.block_k // (1 if problem.dtype == "fp8" else 2)
    arguments = {
        "x": f"tensordesc<{width}[{way.block_m},{block_k}]>",
        "w": f"tensordesc<{width}[2,{way.block_d},{block_k}]>",
        "out": f"tensordesc<{out}[{way.block_m},{way.block_d}]>",
        "epilogue": "*fp32",
        "M": "i32",
        "D": "i32",
    }
    constants = {
        "K": problem.k,
        "SCALED": problem.scaled,
        "BLOCK_M": way.block_m,
        "BLOCK_D": way.block_d,
        "BLOCK_K": block_k,
        "GROUP_M": way.group_m,
        "FLATTEN": way.flatten,
        "EMULATED": False,
    }
    signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
    names = list(signature)
    divisible = {(names.index(name),): [["tt.divisibility", 16]] for name in ("epilogue", "M", "D")}
    values = {(names.index(name),): value for name, value in constants.items()}
    return triton.compile(
        ASTSource(geglu_gemm_kernel, signature, values, divisible),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": way.warps, "num_stages": way.stages},
    )


def usage(cubin):
    """Registers of a thread, and its stack in bytes, which is where spilled registers go."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", text.stdout + text.stderr)
    return {"registers": int(found[1]), "stack": int(found[2])}


def report(problem, way):
    kernel = compiled(problem, way)
    ptx = kernel.asm["ptx"]
    return {
        "way": f"{problem} {way}",
        "threads": 32 * way.warps,
        "shared": kernel.metadata.shared,
        "programs": way.programs,
        "wgmma": sorted(set(re.findall(r"wgmma\.mma_async\.\S*", ptx))),
        "tma": "cp.async.bulk.tensor.3d" in ptx,
        **usage(kernel.asm["cubin"]),
        "saturates": "cvt.rn.satfinite.e4m3x2.f32" in ptx,
    }


def problems(dtype):
    problem = GegluProblem(16384, 5120, 1280, dtype, dtype)
    ways = {(w.block_m, w.block_d, w.stages, w.flatten): w for w in CANDIDATES if w in problem.candidates()}
    return [(problem, way) for way in ways.values()][: None if dtype == "fp8" else 1]


if __name__ == "__main__":
    json.dump([report(*pair) for dtype in ("fp8", "fp16") for pair in problems(dtype)], sys.stdout)
