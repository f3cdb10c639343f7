"""What every engine is: five networks that run on buffers the caller owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from sdxl_engine.models.spec import ModelSpec

Buffers = Mapping[str, Tensor]


class Engine(Protocol):
    """Runs the five networks of one model.

    Attributes:
        name: As registered.
        spec: The model's sizes.
        device: Where buffers must lie.
    """

    name: str
    spec: ModelSpec
    device: torch.device

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """Prepare one network for one set of buffers.

        Args:
            network: One of `spec.NETWORKS`.
            buffers: Every input and output of the network by name, contiguous, on `device`, with the shapes of
                `spec.networks[network]` for one batch size. Buffers may be shared between networks: that is how cached
                features get from the deep UNet to the shallow one without a copy.

        Returns:
            A callable that reads the inputs and writes every element of the outputs.

        Raises:
            EngineError: a buffer is missing or has the wrong shape, dtype or device.
        """
        ...

    def close(self) -> None:
        """Give all memory back; bound callables must not be called after it."""
        ...


def check_buffers(engine: Engine, network: str, buffers: Buffers) -> None:
    """Check names, shapes, dtypes, contiguity and device of the buffers of one network.

    Raises:
        EngineError: naming the first buffer that does not fit.
    """
    interface = engine.spec.networks[network]
    tensors = interface.inputs | interface.outputs
    missing = sorted(tensors.keys() - buffers.keys())
    if missing:
        raise EngineError(f"{network}: buffers are missing", got=sorted(buffers), expected=f"also {missing}")
    batched = next(name for name, spec in tensors.items() if spec.batched)
    rows = buffers[batched].shape[0]
    for name, spec in tensors.items():
        buffer, dtype = buffers[name], getattr(torch, spec.dtype)
        if (
            tuple(buffer.shape) != spec.at(rows)
            or buffer.dtype != dtype
            or buffer.device != engine.device
            or not buffer.is_contiguous()
        ):
            kind = "contiguous" if buffer.is_contiguous() else "strided"
            raise EngineError(
                f"{network}: buffer {name!r} does not fit",
                got=f"{tuple(buffer.shape)} {buffer.dtype} {kind} on {buffer.device}",
                expected=f"{spec.at(rows)} {dtype} contiguous on {engine.device}",
            )
