"""cuBLASLt's binding: constants against its headers, descriptors, errors; on a GPU, products against float64."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from synchronising import synchronising_is_an_error

from sdxl_engine.engines.cuda import cublaslt_api as api
from sdxl_engine.engines.cuda import cublaslt_library
from sdxl_engine.engines.cuda.cublaslt import Matmul
from sdxl_engine.engines.cuda.cublaslt_problem import DTYPES, Descriptors, GemmProblem
from sdxl_engine.errors import EngineError, UnavailableError, UsageError


def header_folders():
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or []) if spec else []
    folders = [path for root in roots for path in Path(root).glob("**/include")]
    return [*folders, Path("/usr/local/cuda/include")]


HEADERS = {
    name: next((folder / name for folder in header_folders() if (folder / name).exists()), None)
    for name in ("cublasLt.h", "cublas_api.h", "library_types.h")
}
needs_headers = pytest.mark.skipif(
    None in HEADERS.values(), reason=f"needs the headers {', '.join(name for name, at in HEADERS.items() if not at)}"
)
needs_library = pytest.mark.skipif(
    torch.version.cuda is None, reason=f"needs cuBLASLt, which torch {torch.__version__} without CUDA does not bring"
)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9),
        reason="needs an NVIDIA GPU of compute capability 8.9 or newer: "
        f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, counts {torch.cuda.device_count()}",
    ),
]

PREFIXES = {
    api.Status: "CUBLAS_STATUS_",
    api.DataType: "CUDA_",
    api.ComputeType: "CUBLAS_",
    api.Operation: "CUBLAS_",
    api.Describes: "CUBLASLT_MATMUL_DESC_",
    api.Epilogue: "CUBLASLT_EPILOGUE_",
    api.Prefers: "CUBLASLT_MATMUL_PREF_",
}


@needs_headers
@pytest.mark.parametrize("enum", PREFIXES, ids=lambda enum: enum.__name__)
def test_constants_are_those_of_the_headers(enum):
    text = "\n".join(path.read_text(encoding="utf-8") for path in HEADERS.values())
    values = dict(re.findall(r"^\s*(CU[A-Z0-9_]+)\s*=\s*(\w+)", text, re.MULTILINE))
    for member in enum:
        assert int(values[PREFIXES[enum] + member.name]) == member, member


@needs_headers
def test_structures_have_the_sizes_of_the_header():
    text = HEADERS["cublasLt.h"].read_text(encoding="utf-8")
    words = re.search(r"uint64_t data\[(\d+)\];\s*} cublasLtMatmulAlgo_t;", text)
    assert ctypes.sizeof(api.Algorithm) == 8 * int(words[1]) == 64
    fields = re.search(r"cublasLtMatmulAlgo_t algo;(.*?)} cublasLtMatmulHeuristicResult_t", text, re.DOTALL)[1]
    fields = re.findall(r"^\s*(\w+) (\w+)(?:\[(\d+)\])?;", fields, re.MULTILINE)
    assert fields == [
        ("size_t", "workspaceSize", ""),
        ("cublasStatus_t", "state", ""),
        ("float", "wavesCount", ""),
        ("int", "reserved", "4"),
    ]
    assert ctypes.sizeof(api.Heuristic) == 64 + 8 + 4 + 4 + 16


@needs_headers
@pytest.mark.parametrize("name", api.PROTOTYPES)
def test_functions_have_as_many_arguments_as_the_header(name):
    text = HEADERS["cublasLt.h"].read_text(encoding="utf-8")
    text = re.sub(r"//.*", "", text)
    declared = re.search(rf"cublasStatus_t CUBLASWINAPI\s+{name}\(([^;{{]*)\)", text)[1]
    assert len(declared.split(",")) == len(api.PROTOTYPES[name])


@needs_library
def test_the_library_is_the_one_that_torch_has_loaded():
    path = cublaslt_library.find()
    assert path.name.startswith("libcublasLt.so")
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libcublasLt" in line}
    assert not loaded or str(path) in loaded
    assert cublaslt_library.load().version // 10000 in {12, 13}


def test_a_machine_without_the_library_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(cublaslt_library, "_loaded", list)
    monkeypatch.setattr(cublaslt_library, "_package_folders", list)
    monkeypatch.setattr(cublaslt_library, "_toolkit_folders", lambda: [tmp_path])
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(UnavailableError, match="cuBLASLt is not installed") as error:
        cublaslt_library.find()
    assert str(tmp_path) in str(error.value)
    library = tmp_path / "libcublasLt.so.13"
    library.write_bytes(b"not a library")
    assert cublaslt_library.find() == library
    with pytest.raises(UnavailableError, match="cuBLASLt does not load"):
        cublaslt_library.CublasLt(library)


def test_loaded_libraries_are_read_from_the_list_of_mapped_files(tmp_path):
    library = tmp_path / "a folder" / "libcublasLt.so.13"
    library.parent.mkdir()
    library.touch()
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 11 /lib/libc.so.6\n"
        "7f01-7f02 rw-p 00000000 00:00 0\n"
        f"7f02-7f03 r--p 00000000 08:01 12                    {library}\n"
        f"7f03-7f04 r-xp 00001000 08:01 12                    {library}\n"
        "7f04-7f05 r-xp 00000000 08:01 13                    /gone/libcublasLt.so.12\n"
    )
    assert cublaslt_library._loaded(maps) == [library]
    assert cublaslt_library._loaded(tmp_path / "none") == []


@needs_library
@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (GemmProblem(33, 64, 48), {"EPILOGUE": 1, "FAST_ACCUM": 0}),
        (
            GemmProblem(33, 64, 48, "fp8", bias=True, residual=True),
            {"EPILOGUE": 4, "FAST_ACCUM": 1, "BIAS_DATA_TYPE": 2},
        ),
        (GemmProblem(33, 64, 48, "fp8", fast_accumulation=False), {"EPILOGUE": 1, "FAST_ACCUM": 0}),
    ],
    ids=str,
)
def test_descriptors_hold_what_the_problem_says(problem, expected):
    made = Descriptors(cublaslt_library.load(), problem)
    expected = {"TRANSA": 1, "TRANSB": 0, **expected}
    kinds = {"FAST_ACCUM": ctypes.c_int8}
    got = {name: made.read(api.Describes[name], kinds.get(name, ctypes.c_int32)) for name in expected}
    assert got == expected
    made.point(0x100, 0x200, 0x300)
    pointers = ("BIAS_POINTER", "A_SCALE_POINTER", "B_SCALE_POINTER")
    got = [made.read(api.Describes[name], ctypes.c_void_p) for name in pointers]
    scaled = problem.scaled
    assert got == [0x100 if problem.bias else None, 0x300 if scaled else None, 0x200 if scaled else None]
    made.close()
    made.close()


@needs_library
def test_a_refusal_names_the_call_the_status_and_the_problem():
    problem = GemmProblem(33, 64, 48, "fp8")
    made = Descriptors(cublaslt_library.load(), problem)
    with pytest.raises(EngineError) as error:
        made.read(api.Describes.TRANSA, ctypes.c_int8)
    assert str(error.value).startswith(
        "cublasLtMatmulDescGetAttribute failed for TRANSA of m33-n64-k48-fp8-fast\n"
        "  got:      CUBLAS_STATUS_INVALID_VALUE (7)"
    )
    error = cublaslt_library.failed("cublasLtMatmul", 99, problem, cublaslt_library.load())
    assert "a status that cublas_api.h does not have (99)" in str(error)


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ({"dtype": "bf16"}, "dtype 'bf16'"),
        ({"dtype": "fp8", "k": 24}, "M, N, K = 8, 16, 24"),
        ({"n": 12}, "M, N, K = 8, 12, 16"),
        ({"m": 0}, "M, N, K = 0, 16, 16"),
    ],
)
def test_a_problem_that_cannot_be_is_refused(arguments, got):
    with pytest.raises(UsageError, match="no such product") as error:
        GemmProblem(**{"m": 8, "n": 16, "k": 16, **arguments})
    assert error.value.parts["got"] == got


def check(product, arguments):
    """Against float64, with the rounding to fp16 of the sum and of what a residual makes of it."""
    problem, out = product.problem, arguments["out"]
    before = out.double() if problem.residual else 0.0
    if not problem.residual:
        out.fill_(torch.nan)
    exact = arguments["a"].double() @ arguments["w"].double().T
    if problem.scaled:
        exact *= arguments["a_scale"].double() * arguments["w_scale"].double()
    if problem.bias:
        exact += arguments["bias"].double()
    # Sums in fp32; of fp8 products with 13 bits after the point, as long as they are not promoted.
    sums = 2.0**-16
    if problem.scaled:
        sums = max(1, problem.k / 32) * 2.0**-13 if problem.fast_accumulation else 2.0**-10
    bound = (exact.abs() * problem.residual + (exact + before).abs()) * 2.0**-11 + 2.0**-25 + exact.abs().max() * sums
    assert product(**arguments) is out
    excess = (out.double() - exact - before).abs() / bound
    assert excess.max() <= 1, f"{problem}: {excess.max():.3f} of the bound"


class TestOnGpu:
    pytestmark = gpu

    @pytest.mark.parametrize("shape", [(128, 128, 128), (37, 48, 208), (1, 16, 16), (1000, 1280, 640)], ids=str)
    @pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
    @pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_products(self, dtype, bias, residual, shape):
        problem = GemmProblem(*shape, dtype, bias, residual)
        product = Matmul(problem)
        # Twice, with other buffers: pointers that the descriptor holds are changed.
        for seed in range(2):
            check(product, product.example(seed))
        product.close()
        with pytest.raises(RuntimeError, match="is closed"):
            product(**product.example())

    def test_exact_accumulation(self):
        product = Matmul(GemmProblem(512, 256, 5120, "fp8", fast_accumulation=False))
        check(product, product.example())

    def test_tuning_keeps_a_right_product_and_its_choice_can_be_kept(self):
        problem = GemmProblem(4096, 1280, 1280, "fp8", True, True)
        product = Matmul(problem)
        times = product.tune(rounds=2)
        assert len(times) == len(product.algorithms)
        check(product, product.example(5))
        choice = json.loads(json.dumps(product.choice))
        assert len(bytes.fromhex(choice["algorithm"])) == 64
        again, other = Matmul(problem), Matmul(GemmProblem(64, 1280, 1280))
        assert again.use(choice)
        assert not other.use(choice)
        assert again.choice == product.choice
        check(again, again.example(6))
        assert not again.use({**choice, "cublaslt": 1})

    def test_a_graph_replays_what_was_captured(self):
        problem = GemmProblem(256, 640, 2560, "fp8", True, True)
        product = Matmul(problem)
        arguments = product.example()
        before = arguments["out"].clone()
        check(product, arguments)
        eager = arguments["out"].clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            product(**arguments)
            with pytest.raises(RuntimeError, match="tune before"):
                product.tune()
        arguments["out"].copy_(before)
        graph.replay()
        assert torch.equal(arguments["out"], eager)

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
    def test_a_call_neither_allocates_nor_waits(self):
        product = Matmul(GemmProblem(256, 640, 2560, bias=True))
        arguments = product.example()
        product(**arguments)
        torch.cuda.synchronize()
        allocated = torch.cuda.memory_stats()["allocation.all.allocated"]
        with synchronising_is_an_error():
            product(**arguments)
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocated

    def test_tensors_that_do_not_fit_are_refused(self):
        product = Matmul(GemmProblem(64, 32, 32, "fp8", bias=True))
        arguments = product.example()
        for name, wrong in (
            ("a", arguments["a"].half()),
            ("w", arguments["w"].T),
            ("out", arguments["out"].cpu()),
            ("bias", None),
            ("a_scale", torch.ones(64, device="cuda")),
            ("w_scale", torch.ones(7, device="cuda")[3:4]),
        ):
            with pytest.raises(UsageError, match=f"{name} does not fit m64-n32-k32-fp8-bias-fast"):
                product(**{**arguments, name: wrong})
        plain = Matmul(GemmProblem(64, 32, 32))
        with pytest.raises(UsageError, match="bias does not fit"):
            plain(**plain.example(), bias=arguments["bias"])
