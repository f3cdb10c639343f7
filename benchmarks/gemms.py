"""Matrix products of SDXL at batch 16 (8 images with guidance) on one GPU: `python benchmarks/gemms.py [--json FILE]`.

Every linear layer's shape of a deep step, and of the text encoders, by each of

    torch fp16, torch fp8       F.linear; torch._scaled_mm with one scale each
    lt ...                      our cuBLASLt binding: its first algorithm, or the one that tuning chose (`tuned`);
                                `+res`: adding to the residual stream in the same kernel
    geglu ...                   the first half of a feed-forward layer through to GEGLU's output: one fused Triton
                                kernel, or cuBLASLt's product and a pointwise kernel of torch.compile

Random data; every result is first compared with float64. A time is the median of replays of a CUDA graph that goes
through several sets of buffers. The sums count each layer as often as a deep step runs it. What fails is a row.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.cuda.cublaslt import Matmul
from sdxl_engine.engines.cuda.cublaslt_library import load
from sdxl_engine.engines.cuda.cublaslt_problem import GemmProblem
from sdxl_engine.engines.cuda.kernels.geglu_gemm import GegluGemm, GegluProblem
from sdxl_engine.engines.cuda.timing import graphed_milliseconds
from sdxl_engine.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable

SETS, REPLAYS = 3, 20
FP8_MOST = 448.0
OUT_SCALE = 0.05
"""Of GEGLU's outputs in fp8: random ones are below 448 times this."""
RELATIVE = {"fp16": 1e-3, "fp8": 1e-2, "geglu fp8": 4e-2}
"""Most of |result - exact| / |exact|, as norms; rounding outputs to fp16 makes 2e-4 and to fp8 2.6e-2 of it.

Sums of fp8 products lose up to 2**-13 every 32 of them, in one direction: 160 times where K is 5120."""


@dataclass(frozen=True)
class Layer:
    """A shape, and how often a deep step has it; 0 for the text encoders, which run once per batch."""

    name: str
    m: int
    n: int
    k: int
    bias: bool
    residual: bool
    calls: int


def unet_layers(m: int, width: int, blocks: int, transformers: int) -> list[Layer]:
    """Those of the transformers of one width; keys and values of the text are computed once per batch."""
    return [
        Layer(f"qkv {width}", m, 3 * width, width, False, False, blocks),
        Layer(f"out {width}", m, width, width, True, True, 2 * blocks),
        Layer(f"q {width}", m, width, width, False, False, blocks),
        Layer(f"ff1 {width}", m, 8 * width, width, True, False, blocks),
        Layer(f"ff2 {width}", m, width, 4 * width, True, True, blocks),
        Layer(f"proj_in {width}", m, width, width, True, False, transformers),
        Layer(f"proj_out {width}", m, width, width, True, True, transformers),
    ]


def text_layers(width: int) -> list[Layer]:
    """Those of a text encoder: 16 sequences of 77 tokens."""
    m = 16 * 77
    return [
        Layer(f"text qkv {width}", m, 3 * width, width, True, False, 0),
        Layer(f"text out {width}", m, width, width, True, True, 0),
        Layer(f"text fc1 {width}", m, 4 * width, width, True, False, 0),
        Layer(f"text fc2 {width}", m, width, 4 * width, True, True, 0),
    ]


LAYERS = [*unet_layers(16384, 1280, 60, 6), *unet_layers(65536, 640, 10, 5), *text_layers(768), *text_layers(1280)]


@dataclass
class Row:
    """What one way of computing a layer took; `error` in place of a time where it failed."""

    layer: str
    m: int
    n: int
    k: int
    calls: int
    method: str
    ms: float | None = None
    tflops: float | None = None
    relative_error: float | None = None
    error: str | None = None
    choice: str = ""


def compared(result: torch.Tensor, exact: torch.Tensor, most: float) -> float:
    """|result - exact| / |exact|; raises if it is above `most` or not a number."""
    relative = float((result.double() - exact).norm() / exact.norm())
    if not relative <= most:
        raise AssertionError(f"wrong: {relative:.3g} relative error, at most {most:g} expected")
    return relative


def exact_product(problem: GemmProblem, arguments: dict[str, Any]) -> torch.Tensor:
    """In float64, unrounded, with what `out` holds now."""
    exact = arguments["a"].double() @ arguments["w"].double().T
    for name in ("a_scale", "w_scale"):
        if name in arguments:
            exact *= arguments[name].double()
    if problem.bias:
        exact += arguments["bias"].double()
    if problem.residual:
        exact += arguments["out"].double()
    return exact


def torch_call(problem: GemmProblem, a: dict[str, Any]) -> Callable[[], torch.Tensor]:
    """The layer by torch's own operators."""
    bias = a.get("bias")
    if problem.dtype == "fp16":
        return lambda: torch.nn.functional.linear(a["a"], a["w"], bias)
    return lambda: torch._scaled_mm(
        a["a"],
        a["w"].t(),
        a["a_scale"],
        a["w_scale"],
        bias=bias,
        out_dtype=torch.float16,
        use_fast_accum=problem.fast_accumulation,
    )


def product(layer: Layer, dtype: str, ours: str, residual: bool) -> tuple[float, float, str]:
    """Time and relative error of one way of a layer, and what tuning took; `ours` is `torch`, `default` or `tuned`."""
    problem = GemmProblem(layer.m, layer.n, layer.k, dtype, layer.bias, residual)  # type: ignore[arg-type]
    matmul = Matmul(problem)
    sets = [matmul.example(seed) for seed in range(SETS)]
    exact = exact_product(problem, sets[0])
    calls: list[Callable[[], torch.Tensor]]
    chosen = ""
    if ours == "torch":
        calls = [torch_call(problem, arguments) for arguments in sets]
    else:
        if ours == "tuned":
            times = matmul.tune(sets=2)
            taken = [bytes(algorithm).hex() for algorithm in matmul.algorithms].index(matmul.choice["algorithm"])
            chosen = f"{taken} of {len(times)}"
        if not residual:
            sets[0]["out"].fill_(torch.nan)
        calls = [lambda arguments=arguments: matmul(**arguments) for arguments in sets]
    error = compared(calls[0](), exact, RELATIVE[dtype])
    del exact
    return graphed_milliseconds(calls, REPLAYS), error, chosen


def geglu_fused(layer: Layer, dtype: str, tuned: bool) -> tuple[float, float, str]:
    """Time and relative error of the fused kernel, and how it ran."""
    problem = GegluProblem(layer.m, layer.n // 2, layer.k, dtype, dtype)  # type: ignore[arg-type]
    fused = GegluGemm(problem)
    if tuned:
        fused.tune()
    sets = [fused.example(seed) for seed in range(SETS)]
    first = sets[0]
    first["out"].view(torch.uint8).fill_(0x7F)  # NaN
    v, g = (first["x"].double() @ first["w"].double().T).chunk(2, dim=1)
    v_bias, g_bias, v_scale, g_scale = first["epilogue"].double()
    exact = (v * v_scale + v_bias) * torch.nn.functional.gelu(g * g_scale + g_bias)
    error = compared(
        fused(**first), exact.clamp(-FP8_MOST, FP8_MOST), RELATIVE[f"geglu {dtype}" if dtype == "fp8" else dtype]
    )
    del exact, v, g
    calls = [lambda arguments=arguments: fused(**arguments) for arguments in sets]
    return graphed_milliseconds(calls, REPLAYS), error, str(fused.candidate)


@torch.compile(dynamic=False)
def pointwise_geglu(both: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What follows the product where it is not fused."""
    v, g = both.float().chunk(2, dim=1)
    outputs = v * torch.nn.functional.gelu(g)
    return outputs.to(dtype) if dtype == torch.float16 else (outputs / OUT_SCALE).clamp(-FP8_MOST, FP8_MOST).to(dtype)


def geglu_separate(layer: Layer, dtype: str) -> tuple[float, float, str]:
    """The product of cuBLASLt and a pointwise kernel."""
    problem = GemmProblem(layer.m, layer.n, layer.k, dtype, layer.bias, False)  # type: ignore[arg-type]
    matmul = Matmul(problem)
    matmul.tune(sets=2)
    sets = [matmul.example(seed) for seed in range(SETS)]

    def call(arguments: dict[str, Any]) -> torch.Tensor:
        return pointwise_geglu(matmul(**arguments), arguments["a"].dtype)

    v, g = exact_product(problem, sets[0]).chunk(2, dim=1)
    exact = v * torch.nn.functional.gelu(g)
    if dtype == "fp8":
        exact = (exact / OUT_SCALE).clamp(-FP8_MOST, FP8_MOST)
    error = compared(call(sets[0]), exact, RELATIVE["geglu fp8" if dtype == "fp8" else dtype])
    del exact, v, g
    return graphed_milliseconds([lambda arguments=arguments: call(arguments) for arguments in sets], REPLAYS), error, ""


def methods(layer: Layer) -> dict[str, Callable[[], tuple[float, float, str]]]:
    """Ways of a layer by name."""
    ways: dict[str, Callable[[], tuple[float, float, str]]] = {}
    for dtype in ("fp16", "fp8"):
        ways[f"torch {dtype}"] = lambda d=dtype: product(layer, d, "torch", False)
        for ours in ("default", "tuned"):
            ways[f"lt {dtype} {ours}"] = lambda d=dtype, o=ours: product(layer, d, o, False)
            if layer.residual:
                ways[f"lt {dtype} {ours} +res"] = lambda d=dtype, o=ours: product(layer, d, o, True)
    if layer.name.startswith("ff1"):
        for dtype in ("fp16", "fp8"):
            ways[f"geglu {dtype} lt + pointwise"] = lambda d=dtype: geglu_separate(layer, d)
            ways[f"geglu {dtype} fused default"] = lambda d=dtype: geglu_fused(layer, d, False)
            ways[f"geglu {dtype} fused tuned"] = lambda d=dtype: geglu_fused(layer, d, True)
    return ways


def measured(layer: Layer, method: str, way: Callable[[], tuple[float, float, str]]) -> Row:
    """The row of one way, with an error in place of figures if it fails."""
    row = Row(layer.name, layer.m, layer.n, layer.k, layer.calls, method)
    try:
        row.ms, row.relative_error, row.choice = way()
        row.tflops = 2 * layer.m * layer.n * layer.k / row.ms / 1e9
    except Exception as error:  # noqa: BLE001 - whatever it is, the other rows go on
        row.error = f"{type(error).__name__}: {error}"
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return row


def sums(rows: list[Row]) -> dict[str, float]:
    """Milliseconds of all linear layers of a deep step by method, of those that have all layers.

    A sum `+res` has the residual where the layer has one; a sum `geglu` is of the ff1 layers, through GEGLU, alone.
    """
    times = {(row.layer, row.method): row.ms for row in rows}
    deep = {row.layer: row.calls for row in rows if row.calls}
    totals = {}
    for method in dict.fromkeys(row.method for row in rows):
        names = [name for name in deep if not method.startswith("geglu") or name.startswith("ff1")]
        found = [times.get((name, method)) or times.get((name, method.removesuffix(" +res"))) for name in names]
        if all(found):
            totals[method] = sum(deep[name] * ms for name, ms in zip(names, found, strict=True) if ms)
    return totals


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows and the sums to this file too")
    parser.add_argument("--layers", default="", help="only layers whose name contains this, e.g. ff1")
    parser.add_argument("--methods", default="", help="only methods whose name contains this, e.g. geglu")
    arguments = parser.parse_args()
    began = time.perf_counter()
    about: dict[str, Any] = {**environment(), "cublaslt": load().version}
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    print(", ".join(f"{name} {about.get(name)}" for name in ("gpu", "torch", "cublaslt")))
    print(f"{'layer':<16}{'M':>7}{'N':>7}{'K':>6}  {'method':<28}{'ms':>9}{'TFLOP/s':>9}{'rel.err':>10}  chosen")
    rows = []
    for layer in LAYERS:
        for method, way in methods(layer).items():
            if arguments.layers not in layer.name or arguments.methods not in method:
                continue
            row = measured(layer, method, way)
            rows.append(row)
            figures = row.error and "  " + " ".join(row.error.split())[:160]
            if row.ms and row.tflops and row.relative_error:
                figures = f"{row.ms:9.4f}{row.tflops:9.1f}{row.relative_error:10.1e}  {row.choice}"
            print(f"{row.layer:<16}{row.m:>7}{row.n:>7}{row.k:>6}  {method:<28}{figures}", flush=True)
    totals = sums(rows)
    print("\nms of the linear layers of a deep step; geglu: of ff1 through GEGLU alone")
    for method, total in totals.items():
        print(f"{method:<28}{total:9.2f}")
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        document = {"environment": about, "rows": [asdict(row) for row in rows], "deep_step_ms": totals}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
