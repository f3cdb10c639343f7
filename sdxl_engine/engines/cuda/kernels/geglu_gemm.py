"""Matrix product fused with GEGLU: out = v * gelu(g), where [v | g] = x @ w.T, scaled, plus bias.

One persistent kernel per product; a program computes BLOCK_M x BLOCK_D outputs from an accumulator of twice that width,
values left, gates right, so that what a feed-forward layer's first half writes is a quarter (fp8) or half (fp16) of
what the product alone would. The weight keeps its layout, value rows [:D] and gate rows [D:]: seen as (2, D, K), one
TMA load brings BLOCK_D rows of each, which one `wgmma` of width 2 BLOCK_D takes.

gelu(g) = g * Phi(g) with the normal distribution Phi(g) = 1 / (1 + 2 ** -(g * q(g * g))); q is a polynomial of degree 6
fitted to the log-odds of Phi such that |g * Phi| is within 1e-7 of the exact one, before rounding to fp32. It keeps the
relative precision of the left tail, which 1 + erf loses, at two special-function operations and 8 multiply-adds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from sdxl_engine.engines.cuda.kernels.checks import kind_of
from sdxl_engine.engines.cuda.timing import fastest, refuse_capture
from sdxl_engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@triton.jit
def gelu(g, EMULATED: tl.constexpr):
    """GELU with erf, of fp32 values.

    Args:
        g: Any shape.
        EMULATED: Whether the interpreter runs, which knows no assembly.
    """
    square = g * g
    # The coefficients of -q, highest first.
    odds = -5.209907616432474e-09 * square + 3.8504495591951127e-07
    odds = odds * square - 1.1452429134806152e-05
    odds = odds * square + 0.00015938941214699298
    odds = odds * square + 9.559295722283423e-05
    odds = odds * square - 0.10483857989311218
    odds = odds * square - 2.3022072315216064
    sum_ = 1.0 + tl.exp2(g * odds)
    if EMULATED:
        return g / sum_
    # A division of Triton's takes care of divisors above 2**126, of which the quotient rounds to 0 here.
    return g * tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [sum_], tl.float32, True, 1)


@triton.jit
def geglu_gemm_kernel(  # noqa: D103 - described by GegluGemm
    x,
    w,
    out,
    epilogue,
    M,
    D,
    K: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    FLATTEN: tl.constexpr,
    EMULATED: tl.constexpr,
):
    # Of Triton's language only built-ins, no functions of its library: the interpreter takes those only if it was asked
    # for before Triton was first imported, which torchvision may do.
    rows_of_tiles = (M + BLOCK_M - 1) // BLOCK_M
    columns_of_tiles = (D + BLOCK_D - 1) // BLOCK_D
    in_group = GROUP_M * columns_of_tiles
    tiles = rows_of_tiles * columns_of_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        # Down GROUP_M tiles, then right: programs that run together share rows of x and of w in the L2 cache.
        first = tile // in_group * GROUP_M
        height = min(rows_of_tiles - first, GROUP_M)
        row = (first + tile % in_group % height) * BLOCK_M
        column = tile % in_group // height * BLOCK_D
        both = tl.full((BLOCK_M, 2 * BLOCK_D), 0.0, tl.float32)
        for step in range((K + BLOCK_K - 1) // BLOCK_K):
            block = w.load([0, column, step * BLOCK_K]).reshape(2 * BLOCK_D, BLOCK_K)
            both = tl.dot(x.load([row, step * BLOCK_K]), block.T, both)
        v, g = both.reshape(BLOCK_M, 2, BLOCK_D).permute(0, 2, 1).split()
        columns = column + tl.arange(0, BLOCK_D)
        inside = columns < D
        v_bias = tl.load(epilogue + columns, inside, 0.0)[None, :]
        g_bias = tl.load(epilogue + D + columns, inside, 0.0)[None, :]
        if SCALED:
            v = v * tl.load(epilogue + 2 * D + columns, inside, 0.0)[None, :] + v_bias
            g = g * tl.load(epilogue + 3 * D + columns, inside, 0.0)[None, :] + g_bias
        else:
            v += v_bias
            g += g_bias
        out.store([row, column], (v * gelu(g, EMULATED)).to(out.dtype))


EMULATED = not isinstance(geglu_gemm_kernel, triton.JITFunction)
"""Whether Triton's interpreter runs the kernels (TRITON_INTERPRET=1 when Triton was imported)."""

DTYPES = {"fp16": torch.float16, "fp8": torch.float8_e4m3fn}
FP8_MOST = torch.finfo(torch.float8_e4m3fn).max


@dataclass(frozen=True)
class Candidate:
    """A way to run the kernel.

    Args:
        block_m, block_d: Outputs of a tile; the accumulator is twice as wide.
        block_k: Columns of x and w per step, in bytes: 128 is what TMA swizzles.
        stages: Steps whose loads are under way.
        warps: Of a program.
        programs: Per multiprocessor. With two, one multiplies while the other writes.
        group_m: Tiles down before the next column.
        flatten: Whether a tile's first loads are started while the tile before is written.
    """

    block_m: int
    block_d: int
    block_k: int = 128
    stages: int = 3
    warps: int = 8
    programs: int = 1
    group_m: int = 8
    flatten: bool = True


CANDIDATES = (
    Candidate(128, 128),
    Candidate(128, 128, stages=4),
    Candidate(128, 128, stages=4, flatten=False),
    Candidate(256, 64),
    Candidate(128, 64, warps=4, programs=2),
)
"""The first is used untuned. On sm_90, with one dtype in and out, each fits shared memory and spills no register."""
WIDE_OUTPUT = 3
"""Most stages of a 128 x 128 tile with fp16 outputs, whose buffer takes the room of the fourth."""


@dataclass(frozen=True)
class GegluProblem:
    """out = v * gelu(g), [v | g] = scale * (x @ w.T) + bias.

    x is (M, K), w is (2D, K), values then gates, both of `dtype`; out is (M, D) of `out`; all contiguous. The sum is
    fp32. The epilogue is (4, D) fp32, of `pack_epilogue`. K and D must be multiples of 16.
    """

    m: int
    d: int
    k: int
    dtype: Literal["fp16", "fp8"] = "fp8"
    out: Literal["fp16", "fp8"] = "fp8"

    def __post_init__(self) -> None:
        if min(self.m, self.d, self.k) < 1 or self.d % 16 or self.k % 16:
            raise UsageError(
                "the GEGLU product has no such size",
                got=f"M, D, K = {self.m}, {self.d}, {self.k}",
                expected="D and K in multiples of 16, M of at least 1",
                source="GegluProblem",
            )

    def __str__(self) -> str:
        return f"geglu-m{self.m}-d{self.d}-k{self.k}-{self.dtype}-{self.out}"

    @property
    def scaled(self) -> bool:
        """Whether there are scales: with fp8 on either side."""
        return "fp8" in {self.dtype, self.out}

    def candidates(self) -> list[Candidate]:
        """Those that fit in shared memory."""
        return [one for one in CANDIDATES if self.out == "fp8" or one.stages <= WIDE_OUTPUT]


def pack_epilogue(
    bias: torch.Tensor,
    w_scale: torch.Tensor | float = 1.0,
    x_scale: torch.Tensor | float = 1.0,
    out_scale: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """The rows value bias, gate bias, value scale, gate scale, (4, D) fp32, as the kernel reads them.

    Args:
        bias: (2D,), values then gates, of any float type.
        w_scale: (2D,), per output channel, or one for all: what w's stored values are to be multiplied by.
        x_scale: One number: the same for x.
        out_scale: One number: what the stored outputs are to be multiplied by.
    """
    biases = bias.detach().float().reshape(2, -1)
    scales = torch.as_tensor(w_scale, device=bias.device).float() * x_scale
    scales = scales.broadcast_to(bias.shape).reshape(2, -1)
    divisor = torch.stack(
        [torch.as_tensor(out_scale).float().to(bias.device).reshape(()), bias.new_ones((), dtype=torch.float32)]
    )
    return torch.cat([biases / divisor[:, None], scales / divisor[:, None]]).contiguous()


class GegluGemm:
    """One problem on one device, with its candidate. A call allocates nothing on the device and waits for nothing.

    It can be captured in a CUDA graph after one call outside, which compiles. Triton's interpreter runs it on the CPU.

    Roofline: with K = 1280 in fp8, 429.5 GFLOP and 117 MB of traffic at M = 16384, D = 5120; bound by the tensor cores.
    There 1179 TFLOP/s in fp8, 60 % of the data sheet's at full clock, and 687 in fp16, 69 %; with K = 640, D = 2560,
    M = 65536 974 (49 %) and 600 (61 %). Faster than cuBLASLt's product and a pointwise kernel by 1.34 and 1.18, 1.59
    and 1.36 times. NVIDIA H100 80GB HBM3, 700 W, at 1410 to 1515 MHz under load, torch 2.11.0+cu130, Triton 3.6,
    2026-11-28.

    Args:
        problem: What is computed.
        device: Where.
    """

    def __init__(self, problem: GegluProblem, device: torch.device | str = "cuda") -> None:
        self.problem = problem
        self.device = torch.empty(0, device=device).device
        self.candidate = problem.candidates()[0]
        self._multiprocessors = 1
        if self.device.type == "cuda":
            self._multiprocessors = torch.cuda.get_device_properties(self.device).multi_processor_count

    def __call__(self, x: torch.Tensor, w: torch.Tensor, epilogue: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Compute into `out` on the current stream, and return it.

        Outputs in fp8 beyond 448 become 448, as the GPU's own conversion has it; NaN stays.

        Raises:
            UsageError: a tensor does not fit the problem.
        """
        problem, way = self.problem, self.candidate
        m, d, k = problem.m, problem.d, problem.k
        dtype = DTYPES[problem.dtype]
        self._check("x", x, (m, k), dtype)
        self._check("w", w, (2 * d, k), dtype)
        self._check("epilogue", epilogue, (4, d), torch.float32)
        self._check("out", out, (m, d), DTYPES[problem.out])
        target = out
        if EMULATED and problem.out == "fp8":
            # The interpreter's own conversion is wrong where rounding carries into the exponent (Triton 3.8).
            target = torch.full_like(out, torch.nan, dtype=torch.float32)
        block_k = way.block_k // dtype.itemsize
        tiles = triton.cdiv(m, way.block_m) * triton.cdiv(d, way.block_d)
        geglu_gemm_kernel[(min(tiles, way.programs * self._multiprocessors),)](
            TensorDescriptor(x, [m, k], [k, 1], [way.block_m, block_k]),
            TensorDescriptor(w, [2, d, k], [d * k, k, 1], [2, way.block_d, block_k]),
            TensorDescriptor(target, [m, d], [d, 1], [way.block_m, way.block_d]),
            epilogue,
            m,
            d,
            K=k,
            SCALED=problem.scaled,
            BLOCK_M=way.block_m,
            BLOCK_D=way.block_d,
            BLOCK_K=block_k,
            GROUP_M=way.group_m,
            FLATTEN=way.flatten,
            EMULATED=EMULATED,
            num_warps=way.warps,
            num_stages=way.stages,
        )
        if target is not out:
            out.copy_(target.clamp(-FP8_MOST, FP8_MOST))
        return out

    def tune(self, *, rounds: int = 8, sets: int = 2) -> list[float]:
        """Time every candidate on random buffers and keep the fastest; the times in ms, in their order.

        `sets` buffers take turns, so that what one product reads is not in the cache from the one before.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        refuse_capture()
        calls = [self.example(seed) for seed in range(sets)]
        candidates = self.problem.candidates()

        def run(candidate: Candidate) -> Callable[[], None]:
            def once() -> None:
                self.candidate = candidate
                for arguments in calls:
                    self(**arguments)

            return once

        best, times = fastest([run(candidate) for candidate in candidates], rounds=rounds)
        self.candidate = candidates[best]
        return [time / sets for time in times]

    def example(self, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random arguments of a call, on the device; values and gates of the order of 1, outputs below 448."""
        problem, device = self.problem, self.device
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        bias = normal(2 * problem.d).half()
        scale = problem.k**-0.5
        packed = pack_epilogue(bias)
        w = normal(2 * problem.d, problem.k)
        if problem.scaled:
            channels = 0.5 + torch.rand(2 * problem.d, generator=generator, device=device)
            out_scale = 0.05 if problem.out == "fp8" else 1.0
            packed = pack_epilogue(bias, channels * scale, 1.0, out_scale)
        else:
            w *= scale
        return {
            "x": normal(problem.m, problem.k).to(DTYPES[problem.dtype]),
            "w": w.to(DTYPES[problem.dtype]),
            "epilogue": packed,
            "out": torch.empty(problem.m, problem.d, device=device, dtype=DTYPES[problem.out]),
        }

    @property
    def choice(self) -> dict[str, Any]:
        """The candidate as JSON, and what it is the choice for."""
        return {**self._valid_for(), "candidate": asdict(self.candidate)}

    def use(self, choice: dict[str, Any]) -> bool:
        """Take the candidate of an earlier `choice`; False, and nothing changes, if it was made for something else."""
        if any(choice.get(name) != value for name, value in self._valid_for().items()):
            return False
        candidate = Candidate(**choice["candidate"])
        if candidate not in self.problem.candidates():
            return False
        self.candidate = candidate
        return True

    def _valid_for(self) -> dict[str, Any]:
        return {"problem": str(self.problem), "triton": triton.__version__, "gpu": kind_of(self.device)}

    def _check(self, name: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        aligned = tensor.data_ptr() % 16 == 0
        fits = tensor.shape == shape and tensor.dtype == dtype and tensor.device == self.device
        if not (fits and tensor.is_contiguous() and aligned):
            raise UsageError(
                f"{name} does not fit {self.problem}",
                got=f"{tuple(tensor.shape)}, strides {tensor.stride()}, {tensor.dtype}, {tensor.device}, "
                f"address {'' if aligned else 'not '}a multiple of 16",
                expected=f"{shape}, contiguous, {dtype}, {self.device}, address a multiple of 16",
                source="GegluGemm",
            )
