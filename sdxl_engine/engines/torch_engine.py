"""Engine `torch`: the plain PyTorch modules, the reference that every other engine is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdxl_engine.engines.base import Buffers, Capabilities, EngineMemory, check_buffers, with_floats
from sdxl_engine.models.load import load_networks

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from sdxl_engine.engines.base import EngineRequest

_DTYPES = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""fp64 is not for runs: the conformance suite measures with it what rounding to fp32 does."""


class TorchEngine:
    """Runs the modules eagerly; its float32 is all of float32, TF32 is off.

    Args:
        request: Checkpoint, precision and device; any batch size will do.
        networks: Run in place of the checkpoint's own; in the precision and as `load_networks` gives them.
    """

    name = "torch"

    def __init__(self, request: EngineRequest, networks: dict[str, nn.Module] | None = None) -> None:
        dtype = _DTYPES[request.precision]
        self.spec = request.spec
        self.networks = with_floats(request.spec.networks, dtype)
        decoder_dtype = None
        if dtype == "float16" and request.spec.upcast_decoder:
            # Its activations leave float16's range; bfloat16 holds them.
            self.networks["vae"], decoder_dtype = request.spec.networks["vae"], torch.float32
        # With its number: that is how a buffer on it says where it lies.
        self.device = torch.empty(0, device=request.device).device
        self.capabilities = Capabilities(precision=request.precision, capturable=self.device.type == "cuda")
        if self.device.type == "cuda":
            # The reference of every other engine is in all of float32. The switch is the whole process's.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        loaded = networks or load_networks(request.checkpoint, getattr(torch, dtype), decoder_dtype, request.model_opt)
        self._modules = {name: module.to(self.device) for name, module in loaded.items()}

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        check_buffers(self, network, buffers)
        module, interface = self._modules[network], self.networks[network]
        inputs = [buffers[name] for name in interface.inputs]
        outputs = [buffers[name] for name in interface.outputs]

        def run() -> None:
            with torch.inference_mode():
                results = module(*inputs)
                results = results if isinstance(results, tuple) else (results,)
                for buffer, result in zip(outputs, results, strict=True):
                    buffer.copy_(result)

        return run

    def memory(self) -> EngineMemory:
        """See `Engine.memory`: the weights, each once."""
        weights = {
            tensor.data_ptr(): tensor for module in self._modules.values() for tensor in module.state_dict().values()
        }
        total = sum(tensor.nbytes for tensor in weights.values())
        return EngineMemory(host=0, device=total) if self.device.type == "cuda" else EngineMemory(host=total)

    def close(self) -> None:
        """See `Engine.close`."""
        self._modules.clear()


def create(request: EngineRequest) -> TorchEngine:
    """Make the engine; it builds nothing, so the cache stays unused."""
    return TorchEngine(request)
