"""The product fused with GEGLU against float64: on a GPU, or else in Triton's interpreter; compiled for sm_90."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import ceil
from pathlib import Path

import pytest
import torch
from rounded import assert_rounded, slices

from sdxl_engine.engines.cuda.kernels.geglu_gemm import (
    CANDIDATES,
    EMULATED,
    Candidate,
    GegluGemm,
    GegluProblem,
    pack_epilogue,
)
from sdxl_engine.errors import UsageError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason=f"needs an NVIDIA GPU: torch {torch.__version__}, built for CUDA {torch.version.cuda}, "
        f"counts {torch.cuda.device_count()}",
    ),
]
WAYS = [(dtype, out) for dtype in ("fp8", "fp16") for out in ("fp8", "fp16")]
# Multiples of a tile, of none, smaller than one, and one row.
ODD = [(256, 128, 256), (200, 144, 208), (37, 16, 16), (1, 272, 48)]
STEEPEST = 1.13
"""Of GELU."""


def lost(problem):
    """What a sum of K products may be off by, in units of the largest sum.

    A tensor core adds 16 fp16 or 32 fp8 products at a time, and cuts off what lies behind the 23rd or 13th bit after
    the point: of the sum, once each time, and of the products, which matters where they are few. The interpreter adds
    one at a time, and rounds to 24 bits.
    """
    if DEVICE == "cpu":
        return problem.k * 2.0**-24
    at_once, unit = (32, 2.0**-13) if problem.dtype == "fp8" else (16, 2.0**-23)
    return (1 + ceil(problem.k / at_once)) * unit


def poison(out):
    out.view(torch.uint8).fill_(0x7F)
    assert out.float().isnan().all()


def check(product, arguments):
    out = arguments["out"]
    poison(out)
    assert product(**arguments) is out
    w = arguments["w"].double().T
    v_bias, g_bias, v_scale, g_scale = arguments["epilogue"].double()
    for rows in slices(out):
        v, g = (arguments["x"][rows].double() @ w).chunk(2, dim=1)
        # Of the sums, and of the scale and bias in fp32.
        v_off, g_off = (lost(product.problem) * each.abs().max() for each in (v, g))
        v, g = v * v_scale + v_bias, g * g_scale + g_bias
        v_off, g_off = v_off * v_scale + v.abs().max() * 2.0**-23, g_off * g_scale + g.abs().max() * 2.0**-23
        gate = torch.nn.functional.gelu(g)
        # 1e-7 of the fit; of 2**x, a reciprocal, each off by 2**-22, and of x, off by 2**-23 of up to 4.
        gate_off = STEEPEST * g_off + 1e-7 + gate.abs() * 2.0**-20
        off = v_off * gate.abs() + (v.abs() + v_off) * gate_off
        assert_rounded(out[rows], v * gate, off, f"{product.problem}, {product.candidate}, rows from {rows.start}")


@pytest.mark.parametrize("shape", ODD, ids=str)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_odd_shapes(way, shape):
    product = GegluGemm(GegluProblem(*shape, *way), DEVICE)
    check(product, product.example())


UNEVEN = [GegluProblem(300, 160, 144, dtype, dtype) for dtype in ("fp8", "fp16")]


@pytest.mark.parametrize(("problem", "way"), [(problem, way) for problem in UNEVEN for way in problem.candidates()])
def test_every_candidate(problem, way):
    product = GegluGemm(problem, DEVICE)
    product.candidate = way
    check(product, product.example())


def test_outputs_that_fp8_cannot_hold_become_its_largest():
    product = GegluGemm(GegluProblem(64, 32, 32), DEVICE)
    arguments = product.example()
    arguments["epilogue"][2] *= 1e4
    check(product, arguments)
    assert (arguments["out"].float().abs() == 448).sum() > 100


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_gates_far_from_zero_close_or_pass():
    """GELU over all magnitudes that a gate may have: nothing overflows, the left tail goes to zero."""
    product = GegluGemm(GegluProblem(64, 16, 16, "fp16", "fp16"), DEVICE)
    x = torch.zeros(64, 16, dtype=torch.float16, device=DEVICE)
    gates = torch.logspace(-4, 4.8, 32, dtype=torch.float64)
    x[:, 0] = torch.cat([gates, -gates]).half()
    w = torch.zeros(32, 16, dtype=torch.float16, device=DEVICE)
    w[16:, 0] = 1.0
    ones = torch.cat([torch.ones(16), torch.zeros(16)]).half().to(DEVICE)
    out = torch.empty(64, 16, dtype=torch.float16, device=DEVICE)
    poison(out)
    product(x, w, pack_epilogue(ones), out)
    exact = torch.nn.functional.gelu(x[:, :1].double()).expand(64, 16)
    # 1e-7 of the fit, 1e-7 of fp32.
    assert ((out.double() - exact).abs() <= exact.abs() * (2.0**-11 + 1e-6) + 2e-7).all()


def test_pack_epilogue_divides_values_but_not_gates_by_the_output_scale():
    bias, scales = torch.arange(8.0), torch.arange(1.0, 9.0)
    packed = pack_epilogue(bias.half(), scales, torch.tensor(0.5), torch.tensor(4.0))
    assert packed.dtype == torch.float32
    assert packed.tolist() == [
        [0.0, 0.25, 0.5, 0.75],
        [4.0, 5.0, 6.0, 7.0],
        [0.125, 0.25, 0.375, 0.5],
        [2.5, 3.0, 3.5, 4.0],
    ]


def test_a_choice_is_kept_for_its_problem_alone():
    one, other = (GegluGemm(GegluProblem(m, 16, 16), DEVICE) for m in (1, 2))
    one.candidate = CANDIDATES[3]
    choice = json.loads(json.dumps(one.choice))
    again = GegluGemm(one.problem, DEVICE)
    assert again.use(choice)
    assert not other.use(choice)
    assert again.candidate == CANDIDATES[3]
    assert other.candidate == CANDIDATES[0]
    assert not again.use({**one.choice, "gpu": "another"})
    assert not again.use({**one.choice, "candidate": vars(Candidate(64, 64))})


def test_tensors_that_do_not_fit_are_refused():
    product = GegluGemm(GegluProblem(8, 16, 32), DEVICE)
    arguments = product.example()
    for name, wrong in (
        ("x", arguments["x"].half()),
        ("w", arguments["w"][:16]),
        ("epilogue", arguments["epilogue"].T),
        ("out", arguments["out"][:4]),
    ):
        with pytest.raises(UsageError, match=f"{name} does not fit geglu-m8-d16-k32-fp8-fp8"):
            product(**{**arguments, name: wrong})
    with pytest.raises(UsageError, match="multiples of 16"):
        GegluProblem(8, 24, 32)


@pytest.mark.parametrize("dtype", ["fp8", "fp16"])
@pytest.mark.parametrize("shape", [(16384, 5120, 1280), (65536, 2560, 640), (16000, 5120, 1280)], ids=str)
class TestOnGpu:
    pytestmark = gpu

    def test_shapes_of_sdxl_before_and_after_tuning_and_in_a_graph(self, shape, dtype):
        product = GegluGemm(GegluProblem(*shape, dtype, dtype))
        arguments = product.example()
        check(product, arguments)
        times = product.tune(rounds=2)
        chosen = product.problem.candidates().index(product.candidate)
        assert times[chosen] == (min(times) if chosen else times[0])
        check(product, arguments)
        eager = arguments["out"].view(torch.uint8).clone()
        poison(arguments["out"])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            product(**arguments)
            with pytest.raises(RuntimeError, match="tune before"):
                product.tune()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(arguments["out"].view(torch.uint8), eager)


def test_without_a_gpu_this_is_the_interpreter():
    assert EMULATED or torch.cuda.is_available()


def test_candidates_compile_for_hopper():
    """Ahead of time, in a process of its own: this one may be interpreting."""
    script = Path(__file__).with_name("compile_geglu.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    reports = json.loads(done.stdout)
    assert len(reports) == 6
    for report in reports:
        dtype = "e4m3" if "-fp8-" in report["way"] else "f16"
        assert report["wgmma"], report
        assert all(name.endswith(f"f32.{dtype}.{dtype}") for name in report["wgmma"]), report
        assert report["tma"], report
        assert report["stack"] == 0, report
        # 228 KB of a multiprocessor, 1 KB of which each program reserves.
        assert report["programs"] * (report["shared"] + 1024) <= 228 * 1024, report
        assert report["saturates"] == (dtype == "e4m3"), report
