"""Engine `torch`: the plain PyTorch modules, the reference that every other engine is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdxl_engine.engines.base import Buffers, check_buffers
from sdxl_engine.models.load import load_networks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sdxl_engine.models.spec import ModelSpec


class TorchEngine:
    """Runs the modules eagerly in fp32, on the CPU."""

    name = "torch"

    def __init__(self, checkpoint: Path, spec: ModelSpec) -> None:
        self.spec = spec
        self.device = torch.device("cpu")
        self._networks = load_networks(checkpoint)

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        check_buffers(self, network, buffers)
        module, interface = self._networks[network], self.spec.networks[network]
        inputs = [buffers[name] for name in interface.inputs]
        outputs = [buffers[name] for name in interface.outputs]

        def run() -> None:
            with torch.inference_mode():
                results = module(*inputs)
                results = results if isinstance(results, tuple) else (results,)
                for buffer, result in zip(outputs, results, strict=True):
                    buffer.copy_(result)

        return run

    def close(self) -> None:
        """See `Engine.close`."""
        self._networks.clear()


def create(checkpoint: Path, spec: ModelSpec, cache: Path) -> TorchEngine:  # noqa: ARG001 -- the factories' signature
    """Make the engine; it builds nothing, so the cache stays unused."""
    return TorchEngine(checkpoint, spec)
