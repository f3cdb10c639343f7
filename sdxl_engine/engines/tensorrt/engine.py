"""Engine `tensorrt` at run time: five plans, one block of scratch memory, contexts bound to the caller's CUDA tensors.

Thin on purpose: it has never run with real TensorRT, see docs/tensorrt.md. Guidance, Euler steps, CUDA graphs and the
copies to the host are the pipeline's, as with every engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdxl_engine.engines.base import Buffers, Capabilities, EngineMemory, check_buffers
from sdxl_engine.engines.tensorrt.api import trt
from sdxl_engine.engines.tensorrt.find import find_plans
from sdxl_engine.engines.tensorrt.gpu import device_number, use_gpu
from sdxl_engine.engines.tensorrt.messages import Messages
from sdxl_engine.engines.tensorrt.tensors import engine_rows, engine_tensors, expected_tensors, require_tensors
from sdxl_engine.errors import EngineError
from sdxl_engine.export.exported import interfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sdxl_engine.engines.base import EngineRequest


class TensorRTEngine:
    """Runs checked plans.

    The five networks never run at the same time, so their contexts share one block of device memory, as large as the
    largest needs. The bound callables must therefore run on one stream at a time.

    Args:
        request: Precision, batch size and device.
        plans: The plan of each network, checked by `find_plans`.

    Raises:
        EngineError: TensorRT does not load a plan, or finds another network in it.
    """

    name = "tensorrt"

    def __init__(self, request: EngineRequest, plans: Mapping[str, Path]) -> None:
        self.spec = request.spec
        self.networks = interfaces(request.spec, request.precision)
        self.device = torch.empty(0, device=request.device).device
        self.capabilities = Capabilities(
            precision=request.precision, most_images=request.batch_size, capturable=self.device.type == "cuda"
        )
        # Kept as long as the engines: TensorRT does not own its logger.
        self._messages = Messages()
        self._runtime = trt.Runtime(self._messages)
        self._engines = {network: self._load(network, plan, request) for network, plan in plans.items()}
        self._scratch = torch.empty(
            max(engine.device_memory_size_v2 for engine in self._engines.values()),
            dtype=torch.uint8,
            device=self.device,
        )
        self._plan_bytes = sum(plan.stat().st_size for plan in plans.values())

    def _load(self, network: str, plan: Path, request: EngineRequest) -> trt.ICudaEngine:
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineError(f"{network}: TensorRT does not load the plan", got=self._messages.errors, source=plan)
        require_tensors(network, engine_tensors(engine), expected_tensors(self.networks[network]), plan)
        smallest, _, largest = engine_rows(engine)
        interface = self.networks[network]
        if smallest > interface.rows(1) or largest < interface.rows(request.batch_size):
            raise EngineError(
                f"{network}: the plan's profile does not hold the batches of this run",
                got=f"{smallest} to {largest} rows",
                expected=f"{interface.rows(1)} to {interface.rows(request.batch_size)}",
                source=plan,
            )
        return engine

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`. A context per network and set of buffers, so that running sets no shape or address."""
        check_buffers(self, network, buffers)
        context = self._engines[network].create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineError(f"{network}: TensorRT makes no context", got=self._messages.errors)
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.nbytes)
        interface = self.networks[network]
        # The context holds addresses only: the buffers must live as long as it does.
        kept = {name: buffers[name] for name in interface.inputs | interface.outputs}
        shapes = {name: tuple(buffer.shape) for name, buffer in kept.items()}
        taken = [context.set_input_shape(name, shapes[name]) for name in interface.inputs]
        taken += [context.set_tensor_address(name, buffer.data_ptr()) for name, buffer in kept.items()]
        if not all(taken) or context.infer_shapes():
            raise EngineError(f"{network}: TensorRT refuses the buffers", got=self._messages.errors, source=shapes)

        def run() -> None:
            if not context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream):
                at = {name: hex(buffer.data_ptr()) for name, buffer in kept.items()}
                raise EngineError(f"{network}: TensorRT did not run the plan", got=self._messages.errors, source=at)

        return run

    def memory(self) -> EngineMemory:
        """See `Engine.memory`: the plans, which are weights and kernels, and the shared block."""
        return EngineMemory(host=0, device=self._plan_bytes + self._scratch.nbytes if self._engines else 0)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engines.clear()
        self._scratch = torch.empty(0, dtype=torch.uint8)


def create(request: EngineRequest) -> TensorRTEngine:
    """Load the plans that `sdxl-engine generate-engines` built; nothing is built here.

    Raises:
        AssetError: a plan is missing, stale, foreign or damaged; the message has the command that builds it.
        UnavailableError: there is no TensorRT, or no GPU.
    """
    plans = find_plans(request)
    use_gpu(device_number(request.device))
    return TensorRTEngine(request, plans)
