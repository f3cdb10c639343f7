"""One network on buffers of its own: the inputs in, one call, the outputs out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.models.spec import TensorSpec

Tensors = dict[str, Tensor]


def fresh(engine: Engine, spec: TensorSpec, rows: int) -> Tensor:
    """A buffer of zeros as the engine asks for it; zeros are what the pipeline's buffers start with."""
    return torch.zeros(spec.at(rows), dtype=getattr(torch, spec.dtype), device=engine.device)


class Binding:
    """A network of an engine, bound to buffers.

    Args:
        engine: Which engine.
        network: One of `spec.NETWORKS`.
        rows: Of its batch.
        shared: A binding whose buffers it takes over where names agree, as the pipeline shares those of the two UNets.
    """

    def __init__(self, engine: Engine, network: str, rows: int, shared: Binding | None = None) -> None:
        self.interface = engine.networks[network]
        known = shared.buffers if shared else {}
        tensors = self.interface.inputs | self.interface.outputs
        self.buffers: Tensors = {
            name: known[name] if name in known else fresh(engine, spec, rows) for name, spec in tensors.items()
        }
        self._call = engine.bind(network, self.buffers)

    def run(self, inputs: Tensors, fill: float = 0.0) -> Tensors:
        """Fill the buffers, call the network, and take its outputs.

        Args:
            inputs: By name; what is not named keeps what its buffer holds.
            fill: What the outputs hold before the call.

        Returns:
            Copies of the outputs, on the engine's device and in its dtypes.
        """
        for name in self.interface.inputs.keys() & inputs.keys():
            self.buffers[name].copy_(inputs[name])
        for name in self.interface.outputs:
            self.buffers[name].fill_(fill)
        self._call()
        return {name: self.buffers[name].clone() for name in self.interface.outputs}


def rows_of(engine: Engine, network: str, inputs: Tensors) -> int:
    """Rows of the batch that inputs make up."""
    return next(len(inputs[name]) for name, spec in engine.networks[network].inputs.items() if spec.batched)


def run(engine: Engine, network: str, inputs: Tensors) -> Tensors:
    """One network once, on fresh buffers; floating-point inputs are rounded to what the engine takes."""
    return Binding(engine, network, rows_of(engine, network, inputs)).run(inputs)


def digest(tensors: Tensors) -> str:
    """A name for some tensors on the CPU: of their names, dtypes, shapes and values."""
    found = hashlib.blake2b()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()


def rounded(engine: Engine, network: str, inputs: Tensors) -> Tensors:
    """The inputs as the engine gets to see them: the reference is asked about these, on the CPU."""
    specs = engine.networks[network].inputs
    return {name: tensor.to(getattr(torch, specs[name].dtype)).to(tensor.dtype) for name, tensor in inputs.items()}
