"""Matrix products of cuBLASLt with bias, residual and FP8 scales in one kernel: what torch's own calls do not offer.

>>> product = Matmul(GemmProblem(m=16384, n=1280, k=5120, dtype="fp8", bias=True, residual=True))
>>> product.tune()
>>> product(activations, weight, out, bias=bias, a_scale=a_scale, w_scale=w_scale)  # out += ...
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.cuda.cublaslt_api import Algorithm, Heuristic
from sdxl_engine.engines.cuda.cublaslt_library import CublasLt, failed, load
from sdxl_engine.engines.cuda.cublaslt_problem import ALIGNMENT, DTYPES, WORKSPACE, Descriptors, GemmProblem
from sdxl_engine.engines.cuda.timing import fastest, refuse_capture
from sdxl_engine.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ALGORITHMS = 16


class Matmul:
    """One problem on one device: descriptors, algorithms, the chosen one. A call allocates and waits for nothing.

    It can be captured in a CUDA graph; make it and tune it before. Not for several threads at once: bias and scale
    pointers are part of the descriptor, which is read when the kernel is launched.

    Args:
        problem: What is computed.
        device: A CUDA device; its context is made if there is none.

    Raises:
        UnavailableError: there is no cuBLASLt.
        EngineError: cuBLASLt has no algorithm for this problem.
    """

    def __init__(self, problem: GemmProblem, device: torch.device | str = "cuda") -> None:
        self.problem = problem
        self.device = torch.empty(0, device=device).device
        self.library = load()
        self.descriptors = Descriptors(self.library, problem)
        self._handle, self._workspace = _shared(self.library, self.device)
        self._pointers: tuple[int, int, int] = (0, 0, 0)
        self._factors = ctypes.c_float(1.0), ctypes.c_float(float(problem.residual))
        self._alpha, self._beta = (ctypes.addressof(factor) for factor in self._factors)
        self._dtype = DTYPES[problem.dtype][0]
        self._function = self.library.functions.cublasLtMatmul
        self.algorithms = self._heuristics()
        self._use(self.algorithms[0])

    def __call__(
        self,
        a: torch.Tensor,
        w: torch.Tensor,
        out: torch.Tensor,
        bias: torch.Tensor | None = None,
        a_scale: torch.Tensor | None = None,
        w_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute into `out` on the current stream, and return it.

        Raises:
            UsageError: a tensor does not fit the problem.
            EngineError: cuBLASLt refuses.
        """
        self._check(a, w, out, bias, a_scale, w_scale)
        made = self.descriptors
        if not made.product:
            raise RuntimeError(f"the product {self.problem} is closed")
        pointers = (
            0 if bias is None else bias.data_ptr(),
            0 if a_scale is None else a_scale.data_ptr(),
            0 if w_scale is None else w_scale.data_ptr(),
        )
        if pointers != self._pointers:
            self.descriptors.point(*pointers)
            self._pointers = pointers
        target = out.data_ptr()
        status = self._function(
            self._handle,
            made.product,
            self._alpha,
            w.data_ptr(),
            made.weight,
            a.data_ptr(),
            made.activation,
            self._beta,
            target,
            made.output,
            target,
            made.output,
            self._algorithm,
            self._workspace.data_ptr(),
            WORKSPACE,
            torch.cuda.current_stream(self.device).cuda_stream,
        )
        if status:
            raise failed("cublasLtMatmul", status, self.problem, self.library)
        return out

    def tune(self, *, rounds: int = 8, sets: int = 3) -> list[float]:
        """Time every algorithm on random buffers and keep the fastest; the times in ms, in their order.

        The one that cuBLASLt proposes first stays unless another is clearly faster.
        `sets` buffers take turns, so that what one product reads is not in the cache from the one before.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        refuse_capture()
        calls = [self.example(seed) for seed in range(sets)]

        def run(index: int) -> Callable[[], None]:
            def once() -> None:
                self._use(self.algorithms[index])
                for arguments in calls:
                    self(**arguments)

            return once

        best, times = fastest([run(index) for index in range(len(self.algorithms))], rounds=rounds)
        self._use(self.algorithms[best])
        return [time / sets for time in times]

    def example(self, seed: int = 0) -> dict[str, Any]:
        """Random arguments of a call, on the device; scales such that outputs are of the order of 1."""
        problem, device = self.problem, self.device
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float16)

        arguments: dict[str, Any] = {
            "a": normal(problem.m, problem.k).to(self._dtype),
            "w": (normal(problem.n, problem.k) * (1.0 if problem.dtype == "fp8" else problem.k**-0.5)).to(self._dtype),
            "out": normal(problem.m, problem.n),
        }
        if problem.bias:
            arguments["bias"] = normal(problem.n)
        if problem.scaled:
            for name, factor in (("a_scale", 1.0), ("w_scale", problem.k**-0.5)):
                arguments[name] = (0.5 + torch.rand(1, generator=generator, device=device)) * factor
        return arguments

    @property
    def choice(self) -> dict[str, Any]:
        """The chosen algorithm as JSON: 64 bytes in hex, and what they are valid for."""
        return {**self._valid_for(), "algorithm": bytes(self._algorithm_value).hex()}

    def use(self, choice: dict[str, Any]) -> bool:
        """Take the algorithm of an earlier `choice`; False, and nothing changes, if it was made for something else.

        Raises:
            EngineError: it was made for this, and cuBLASLt refuses it.
        """
        if any(choice.get(name) != value for name, value in self._valid_for().items()):
            return False
        algorithm = Algorithm.from_buffer_copy(bytes.fromhex(choice["algorithm"]))
        result = Heuristic()
        made = self.descriptors
        self.library.call(
            "cublasLtMatmulAlgoCheck",
            self._handle,
            *(made.product, made.weight, made.activation, made.output, made.output),
            ctypes.byref(algorithm),
            ctypes.byref(result),
            about=self.problem,
        )
        if result.workspace > WORKSPACE:
            raise EngineError(
                f"the algorithm chosen for {self.problem} needs more workspace than there is",
                got=f"{result.workspace} bytes",
                expected=f"at most {WORKSPACE}",
                fix="tune it again",
            )
        self._use(algorithm)
        return True

    def close(self) -> None:
        """Free the descriptors; more than once is harmless."""
        self.descriptors.close()

    def _valid_for(self) -> dict[str, Any]:
        return {
            "problem": str(self.problem),
            "cublaslt": self.library.version,
            "gpu": torch.cuda.get_device_name(self.device),
        }

    def _use(self, algorithm: Algorithm) -> None:
        self._algorithm_value = algorithm
        self._algorithm = ctypes.addressof(algorithm)

    def _heuristics(self) -> list[Algorithm]:
        made, library = self.descriptors, self.library
        # The algorithm may depend on whether the pointers are set and how they are aligned.
        bias, scaled = self.problem.bias, self.problem.scaled
        made.point(*(self._workspace.data_ptr() if used else 0 for used in (bias, scaled, scaled)))
        results, count = (Heuristic * MOST_ALGORITHMS)(), ctypes.c_int()
        library.call(
            "cublasLtMatmulAlgoGetHeuristic",
            self._handle,
            *(made.product, made.weight, made.activation, made.output, made.output, made.preference),
            MOST_ALGORITHMS,
            ctypes.byref(results),
            ctypes.byref(count),
            about=self.problem,
        )
        made.point(0, 0, 0)
        found = [result.algorithm for result in results[: count.value] if not result.state]
        if not found:
            raise EngineError(
                f"cuBLASLt has no algorithm for {self.problem}",
                got=f"{count.value} candidates, none of which can run",
                source=f"cuBLASLt {library.version} on {torch.cuda.get_device_name(self.device)}",
                fix="fp8 needs compute capability 8.9 or newer",
            )
        return [Algorithm.from_buffer_copy(bytes(algorithm)) for algorithm in found]

    def _check(
        self,
        a: torch.Tensor,
        w: torch.Tensor,
        out: torch.Tensor,
        bias: torch.Tensor | None,
        a_scale: torch.Tensor | None,
        w_scale: torch.Tensor | None,
    ) -> None:
        problem = self.problem
        scale = (1,) if problem.scaled else None
        expected = (
            ("a", a, (problem.m, problem.k), self._dtype),
            ("w", w, (problem.n, problem.k), self._dtype),
            ("out", out, (problem.m, problem.n), torch.float16),
            ("bias", bias, (problem.n,) if problem.bias else None, torch.float16),
            ("a_scale", a_scale, scale, torch.float32),
            ("w_scale", w_scale, scale, torch.float32),
        )
        for name, tensor, shape, dtype in expected:
            if tensor is None and shape is None:
                continue
            if (
                tensor is None
                or shape is None
                or tensor.shape != shape
                or tensor.dtype != dtype
                or tensor.device != self.device
                or not tensor.is_contiguous()
                or tensor.data_ptr() % ALIGNMENT
            ):
                raise self._unfit(name, tensor, shape, dtype)

    def _unfit(
        self,
        name: str,
        tensor: torch.Tensor | None,
        shape: tuple[int, ...] | None,
        dtype: torch.dtype,
    ) -> UsageError:
        got = expected = "none"
        if tensor is not None:
            got = f"{tuple(tensor.shape)}, strides {tensor.stride()}, {tensor.dtype}, {tensor.device}, "
            got += f"at {tensor.data_ptr():#x}"
        if shape is not None:
            expected = f"{shape}, contiguous, {dtype}, {self.device}, at a multiple of {ALIGNMENT} bytes"
        return UsageError(f"{name} does not fit {self.problem}", got=got, expected=expected, source="Matmul")


_SHARED: dict[int, tuple[int, torch.Tensor]] = {}


def _shared(library: CublasLt, device: torch.device) -> tuple[int, torch.Tensor]:
    """The handle and the workspace of a device; made once, and kept for the life of the process."""
    index = device.index
    if index not in _SHARED:
        with torch.cuda.device(device):
            workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=device)
            handle = ctypes.c_void_p()
            library.call("cublasLtCreate", ctypes.byref(handle), about=device)
        assert handle.value is not None
        _SHARED[index] = handle.value, workspace
    return _SHARED[index]
