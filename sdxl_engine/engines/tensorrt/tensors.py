"""Inputs and outputs of a network: as the project says they are, and as TensorRT says they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

    from sdxl_engine.models.spec import NetworkSpec

Tensors = dict[str, dict[str, Any]]
"""Name to `{"mode": "input" or "output", "dtype": numpy name, "shape": [-1 for the batch, ...]}`."""

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64"}


def expected_tensors(interface: NetworkSpec) -> Tensors:
    """What a network's interface says."""
    return {
        name: _tensor(mode, spec.dtype, spec.at(-1))
        for mode, specs in (("input", interface.inputs), ("output", interface.outputs))
        for name, spec in specs.items()
    }


def network_tensors(network: trt.INetworkDefinition) -> Tensors:
    """What TensorRT's network definition says, after its parser read the ONNX file."""
    inputs = [("input", network.get_input(number)) for number in range(network.num_inputs)]
    outputs = [("output", network.get_output(number)) for number in range(network.num_outputs)]
    return {tensor.name: _tensor(mode, _dtype(tensor.dtype), tensor.shape) for mode, tensor in inputs + outputs}


def engine_tensors(engine: trt.ICudaEngine) -> Tensors:
    """What a deserialised plan says."""
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    return {
        name: _tensor(
            engine.get_tensor_mode(name).name.lower(),
            _dtype(engine.get_tensor_dtype(name)),
            engine.get_tensor_shape(name),
        )
        for name in names
    }


def engine_rows(engine: trt.ICudaEngine) -> tuple[int, int, int]:
    """Smallest, best and largest batch of a deserialised plan's one profile, in rows.

    Raises:
        EngineError: it has several profiles, or its inputs disagree.
    """
    found = {
        tuple(int(shape[0]) for shape in engine.get_tensor_profile_shape(name, 0))
        for name, tensor in engine_tensors(engine).items()
        if tensor["mode"] == "input" and tensor["shape"][0] == -1
    }
    if engine.num_optimization_profiles != 1 or len(found) != 1:
        raise EngineError(
            "a TensorRT plan has other profiles than this project builds",
            got=f"{engine.num_optimization_profiles} profiles, batches {sorted(found)}",
            expected="one profile with one range of batches",
        )
    smallest, best, largest = found.pop()
    return smallest, best, largest


def require_tensors(network: str, found: Tensors, expected: Tensors, source: object) -> None:
    """Compare what TensorRT says with what the project says.

    Raises:
        EngineError: naming each tensor that is missing, foreign or different.
    """
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'none of that name')}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        raise EngineError(f"{network}: TensorRT sees other inputs and outputs", got="; ".join(wrong), source=source)


def _tensor(mode: str, dtype: str, shape: Any) -> dict[str, Any]:
    return {"mode": mode, "dtype": dtype, "shape": [int(size) for size in shape]}


def _dtype(dtype: trt.DataType) -> str:
    return _DTYPES.get(dtype.name, dtype.name)
