"""Compile the convolution for sm_90, which needs no GPU, and print what came out as JSON; run by a test."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sdxl_engine.engines.cuda.kernels.conv3x3 import _conv_kernel, rectangle

TYPES = {"fp8": ("fp8e4nv", 1), "fp16": ("fp16", 2)}
INTEGERS = ("images", "height", "width", "channels", "out_channels", "PROGRAMS")


def compiled(dtype, block_m, block_n, warps, stages, zoom):
    """Wgmma instructions, shared memory in bytes, loads of tiles to registers, bytes spilled by ptxas."""
    name, size = TYPES[dtype]
    block_k = 128 // size
    tile_h, tile_w = rectangle(block_m, 32, 32)
    kinds = {
        "x_desc": f"tensordesc<{name}[1, {tile_h}, {tile_w}, {block_k}]>",
        "w_desc": f"tensordesc<{name}[{block_n}, {block_k}]>",
        "out_ptr": "*fp16",
        "bias_ptr": "*fp32",
        "embedding_ptr": "*fp32",
        "residual_ptr": "*fp16",
        **({"x_scale_ptr": "*fp32", "w_scale_ptr": "*fp32"} if dtype == "fp8" else {}),
        **dict.fromkeys(INTEGERS, "i32"),
    }
    constants = {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
        "TILE_H": tile_h,
        "TILE_W": tile_w,
        "SIDE": 3 if zoom == 1 else 2,
        "ZOOM": zoom,
        "FLATTEN": True,
    }
    names = _conv_kernel.arg_names
    source = ASTSource(
        _conv_kernel,
        {name: kinds.get(name, "constexpr") for name in names},
        {(number,): constants.get(name) for number, name in enumerate(names) if name not in kinds},
        {
            (number,): [["tt.divisibility", 16]]
            for number, name in enumerate(names)
            if name.endswith("_ptr") or name in {"channels", "out_channels"}
        },
    )
    options = {"num_warps": warps, "num_stages": stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(kernel.asm["ptx"])
        done = subprocess.run(
            [ptxas, "-v", "--gpu-name=sm_90a", file, "-o", "/dev/null"], capture_output=True, text=True, check=True
        )
    return {
        "wgmma": sorted(set(re.findall(r"wgmma\.mma_async\S+?(m64n\S+)", kernel.asm["ptx"]))),
        "shared": kernel.metadata.shared,
        "tiles_to_registers": kernel.asm["ttgir"].count("ttg.local_load"),
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", done.stderr))),
        "serialized": "serialized" in done.stderr,
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "fp8": compiled("fp8", 256, 128, 8, 4, 1),
                "fp8, two programs": compiled("fp8", 128, 128, 4, 3, 1),
                "fp8, upsampled": compiled("fp8", 256, 128, 8, 4, 2),
                "fp16": compiled("fp16", 256, 128, 8, 4, 1),
                "fp16, wide": compiled("fp16", 128, 256, 8, 4, 1),
            }
        )
    )
