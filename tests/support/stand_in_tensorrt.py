"""A stand-in for TensorRT's runtime, without a GPU: a "plan" names an ONNX file, which ONNX Runtime runs on the CPU.

It has the classes and calls of `stubs/tensorrt` that the engine uses, and is as strict as the documentation of
TensorRT: a context without memory, shapes or addresses does not run, and a batch outside the profile is refused.
It says nothing of TensorRT's speed, accuracy or bugs.
"""

from __future__ import annotations

import enum
import json

import numpy as np
import onnxruntime

__version__ = "10.13.0.35"

SCRATCH_BYTES = {"unet": 4096, "vae": 1 << 20}
"""What a plan says that it needs; the others say 512."""

LOG: list[tuple[str, int]] = []
"""(network, stream) of each execution."""


class DataType(enum.Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    INT32 = "tensor(int32)"


_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT32: np.int32}


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


def make_plan(network: str, onnx: object, rows: tuple[int, int, int]) -> bytes:
    """The bytes of a plan."""
    return json.dumps({"network": network, "onnx": str(onnx), "rows": rows}).encode()


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            return ICudaEngine(self._logger, **json.loads(serialized_engine))
        except ValueError as error:
            self._logger.log(ILogger.Severity.ERROR, f"not a plan: {error}")
            return None


class ICudaEngine:
    num_optimization_profiles = 1

    def __init__(self, logger: ILogger, network: str, onnx: str, rows: list[int]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.network, self.rows, self._logger = network, rows, logger
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._modes = dict.fromkeys((node.name for node in self.session.get_inputs()), TensorIOMode.INPUT)
        self._modes |= dict.fromkeys((node.name for node in self.session.get_outputs()), TensorIOMode.OUTPUT)
        self._nodes = {node.name: node for node in [*self.session.get_inputs(), *self.session.get_outputs()]}

    @property
    def num_io_tensors(self) -> int:
        return len(self._nodes)

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH_BYTES.get(self.network, 512)

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._modes[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self._nodes[name].type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self._nodes[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        shape = self.get_tensor_shape(name)
        return [tuple(rows if size == -1 else size for size in shape) for rows in self.rows]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self, self._logger)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self._engine, self._logger = engine, logger
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = 0

    def _refuse(self, reason: str) -> bool:
        self._logger.log(ILogger.Severity.ERROR, f"IExecutionContext: {reason}")
        return False

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self._engine.get_tensor_shape(name)
        smallest, _, largest = self._engine.rows
        fits = len(shape) == len(fixed) and all(
            size == want if want != -1 else smallest <= size <= largest for size, want in zip(shape, fixed, strict=True)
        )
        if not fits:
            return self._refuse(f"{name} of shape {shape} is outside the profile")
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._modes:
            return self._refuse(f"there is no tensor {name}")
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [node.name for node in self._engine.session.get_inputs() if node.name not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        if not self._memory or self.infer_shapes() or self._addresses.keys() != engine._modes.keys():
            return self._refuse("memory, shapes or addresses are missing")
        rows = next(shape[0] for name, shape in self._shapes.items() if engine.get_tensor_shape(name)[0] == -1)
        binding = engine.session.io_binding()
        for name, address in self._addresses.items():
            shape = tuple(rows if size == -1 else size for size in engine.get_tensor_shape(name))
            bind = binding.bind_input if engine.get_tensor_mode(name) is TensorIOMode.INPUT else binding.bind_output
            bind(name, "cpu", 0, _NUMPY[engine.get_tensor_dtype(name)], shape, address)
        engine.session.run_with_iobinding(binding)
        LOG.append((engine.network, stream_handle))
        return True
