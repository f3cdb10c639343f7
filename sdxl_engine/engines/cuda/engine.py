"""Engine `cuda`: the five networks written out for NVIDIA GPUs, in fp16, with fp32 sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.base import Buffers, Capabilities, EngineMemory, check_buffers, with_floats
from sdxl_engine.engines.cuda.decoder import Decoder
from sdxl_engine.engines.cuda.layers import Layers
from sdxl_engine.engines.cuda.products import Products
from sdxl_engine.engines.cuda.steps import BatchSteps
from sdxl_engine.engines.cuda.unet import DeepUnet, OuterLevel
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.pruned import FULL, deep_unet
from sdxl_engine.models.spec import CACHED_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.engines.cuda.layers import Multiply


class CudaEngine:
    """Runs the networks on torch's current stream; everything it does can be captured in a CUDA graph.

    Args:
        request: Checkpoint, precision and device.
        networks: Run in place of the checkpoint's own; in fp16 and as `load_networks` gives them.
        multiply: Computes matrix products in cuBLASLt's place.
        scales: For precision fp8: what the inputs of the deep UNet's layers are divided by, by layer's name; layers
            without one run in fp16.
        seen: Takes the largest magnitude of the inputs of each of the deep UNet's layers, by name.
    """

    name = "cuda"

    def __init__(
        self,
        request: EngineRequest,
        networks: dict[str, nn.Module] | None = None,
        multiply: Multiply | None = None,
        scales: Mapping[str, float] | None = None,
        seen: dict[str, Tensor] | None = None,
    ) -> None:
        self.spec = request.spec
        self.networks = with_floats(request.spec.networks, "float16")
        self.device = torch.empty(0, device=request.device).device
        self.capabilities = Capabilities(precision=request.precision, capturable=self.device.type == "cuda")
        if self.device.type == "cuda":
            # Each shape of convolution comes once per batch size, and is worth the search.
            torch.backends.cudnn.benchmark = True
        self._multiply = multiply or Products(self.device)
        loaded = networks or load_networks(request.checkpoint, torch.float16, model_opt=request.model_opt)
        modules: dict[str, Any] = {name: module.to(self.device) for name, module in loaded.items()}
        with torch.inference_mode():
            self._text = {name: modules[name] for name in ("clip1", "clip2")}
            deep, vae = modules["unet"].unet, modules["vae"]
            self._deep: DeepUnet | None = DeepUnet(Layers(self._multiply, deep, scales, seen), deep)
            self._shallow: OuterLevel | None = self._deep.outer
            if deep_unet(request.model_opt) != FULL:
                full = modules["shallow_unet"].unet
                self._shallow = OuterLevel(Layers(self._multiply, full), full)
            self._decoder: Decoder | None = Decoder(
                Layers(self._multiply, vae), vae, upcast=request.spec.upcast_decoder
            )

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        check_buffers(self, network, buffers)
        functions: dict[str, Callable[..., Sequence[Tensor]]] = {
            "clip1": self._text["clip1"],
            "clip2": self._text["clip2"],
            "unet": self._run_deep,
            "shallow_unet": self._run_shallow,
            "vae": self._decode,
        }
        interface, function = self.networks[network], functions[network]
        inputs = [buffers[name] for name in interface.inputs]
        outputs = [buffers[name] for name in interface.outputs]

        def run() -> None:
            with torch.inference_mode():
                for buffer, result in zip(outputs, function(*inputs), strict=True):
                    buffer.copy_(result)

        return run

    def bind_steps(self, buffers: Buffers, timesteps: Sequence[float]) -> BatchSteps:
        """See `StepEngine.bind_steps`."""
        assert self._deep is not None and self._shallow is not None
        return BatchSteps(self._deep, self._shallow, buffers, timesteps)

    def _run_deep(
        self, sample: Tensor, timestep: Tensor, text: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> Sequence[Tensor]:
        assert self._deep is not None
        deep, outer = self._deep, self._deep.outer
        (shifts,) = deep.conditioning(timestep, text_embeds, time_ids)
        (outer_shifts,) = outer.conditioning(timestep, text_embeds, time_ids)
        entered, first, second, entering = deep(sample, deep.context(text), shifts)
        noise = outer.leave(outer.keep(entering, second, first), entered, outer_shifts)
        return noise, *(feature.permute(0, 3, 1, 2) for feature in (first, second, entering))

    def _run_shallow(
        self, sample: Tensor, timestep: Tensor, text_embeds: Tensor, time_ids: Tensor, *features: Tensor
    ) -> Sequence[Tensor]:
        assert self._shallow is not None
        outer = self._shallow
        first, second, entering = (feature.permute(0, 2, 3, 1).contiguous() for feature in features)
        (shifts,) = outer.conditioning(timestep, text_embeds, time_ids)
        return (outer.leave(outer.keep(entering, second, first), outer.enter(sample), shifts),)

    def _decode(self, latent: Tensor) -> Sequence[Tensor]:
        assert self._decoder is not None
        return (self._decoder(latent).permute(0, 3, 1, 2),)

    def memory(self) -> EngineMemory:
        """See `Engine.memory`."""
        return EngineMemory(host=0, device=0)

    def close(self) -> None:
        """See `Engine.close`."""
        self._text.clear()
        self._deep = self._shallow = self._decoder = None


def create(request: EngineRequest) -> CudaEngine:
    """Make the engine."""
    return CudaEngine(request)
