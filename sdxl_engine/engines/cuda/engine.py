"""Engine `cuda`: the networks written out for NVIDIA GPUs, in fp16, or in part in fp8, with fp32 sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sdxl_engine.engines.base import Buffers, Capabilities, EngineMemory, check_buffers, with_floats
from sdxl_engine.engines.cuda.computing import Computing
from sdxl_engine.engines.cuda.decoder import Decoder
from sdxl_engine.engines.cuda.layers import Layers
from sdxl_engine.engines.cuda.steps import BatchSteps
from sdxl_engine.engines.cuda.unet import DeepUnet, OuterLevel
from sdxl_engine.errors import EngineError
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.pruned import FULL, deep_unet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.engines.cuda.layers import Compute
    from sdxl_engine.engines.cuda.precision import Scales, Seen


@dataclass(frozen=True)
class Networks:
    """The five networks of one model.

    Args:
        text: `clip1` and `clip2`, which are diffusers' own modules.
        deep: Runs deep steps.
        shallow: Runs shallow ones: the deep one's own outermost level, or for DeepCachePruned that of the full UNet.
        decoder: Latents to images.
    """

    text: dict[str, nn.Module]
    deep: DeepUnet
    shallow: OuterLevel
    decoder: Decoder


class CudaEngine:
    """Runs the networks on torch's current stream; everything it does can be captured in a CUDA graph.

    Args:
        request: Checkpoint, precision and device.
        networks: Run in place of the checkpoint's own; in fp16 and as `load_networks` gives them.
        compute: Computes matrix products in cuBLASLt's place.
        scales: Of the layers that run in fp8.
        seen: Takes the largest magnitude of every layer's inputs.
    """

    name = "cuda"

    def __init__(
        self,
        request: EngineRequest,
        networks: dict[str, nn.Module] | None = None,
        compute: Compute | None = None,
        scales: Scales | None = None,
        seen: Seen | None = None,
    ) -> None:
        self.spec = request.spec
        self.networks = with_floats(request.spec.networks, "float16")
        self.device = torch.empty(0, device=request.device).device
        self.capabilities = Capabilities(precision=request.precision, capturable=self.device.type == "cuda")
        if self.device.type == "cuda":
            # Each shape of convolution comes once per batch size, and is worth the search.
            torch.backends.cudnn.benchmark = True
        self._compute = compute or Computing(self.device)
        loaded = networks or load_networks(request.checkpoint, torch.float16, model_opt=request.model_opt)
        modules: dict[str, Any] = {name: module.to(self.device) for name, module in loaded.items()}
        with torch.inference_mode():

            def layers(network: str, root: nn.Module) -> Layers:
                noted = None if seen is None else seen.setdefault(network, {})
                return Layers(self._compute, root, (scales or {}).get(network), noted)

            deep, full = modules["unet"].unet, modules["shallow_unet"].unet
            unet = DeepUnet(layers("unet", deep), deep)
            shared = deep_unet(request.model_opt) == FULL
            self._loaded: Networks | None = Networks(
                text={name: modules[name] for name in ("clip1", "clip2")},
                deep=unet,
                shallow=unet.outer if shared else OuterLevel(layers("shallow_unet", full), full),
                decoder=Decoder(layers("vae", modules["vae"]), modules["vae"], upcast=request.spec.upcast_decoder),
            )

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        check_buffers(self, network, buffers)
        functions: dict[str, Callable[..., Sequence[Tensor]]] = {
            **self._networks.text,
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
        return BatchSteps(self._networks.deep, self._networks.shallow, buffers, timesteps)

    @property
    def _networks(self) -> Networks:
        if self._loaded is None:
            raise EngineError("the engine cuda is closed", got="a call", expected="calls before close()")
        return self._loaded

    def _run_deep(
        self, sample: Tensor, timestep: Tensor, text: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> Sequence[Tensor]:
        deep, outer = self._networks.deep, self._networks.deep.outer
        (shifts,) = deep.conditioning(timestep, text_embeds, time_ids)
        (outer_shifts,) = outer.conditioning(timestep, text_embeds, time_ids)
        entered, first, second, entering = deep(sample, deep.context(text), shifts)
        noise = outer.leave(outer.keep(entering, second, first), entered, outer_shifts)
        return noise, *(feature.permute(0, 3, 1, 2) for feature in (first, second, entering))

    def _run_shallow(
        self, sample: Tensor, timestep: Tensor, text_embeds: Tensor, time_ids: Tensor, *features: Tensor
    ) -> Sequence[Tensor]:
        outer = self._networks.shallow
        first, second, entering = (feature.permute(0, 2, 3, 1).contiguous() for feature in features)
        (shifts,) = outer.conditioning(timestep, text_embeds, time_ids)
        return (outer.leave(outer.keep(entering, second, first), outer.enter(sample), shifts),)

    def _decode(self, latent: Tensor) -> Sequence[Tensor]:
        return (self._networks.decoder(latent).permute(0, 3, 1, 2),)

    def memory(self) -> EngineMemory:
        """See `Engine.memory`: the weights, each once."""
        weights = {tensor.data_ptr(): tensor.nbytes for tensor in tensors_in(self._loaded)}
        return EngineMemory(host=0, device=sum(weights.values()))

    def close(self) -> None:
        """See `Engine.close`."""
        self._loaded = None
        if isinstance(self._compute, Computing):
            self._compute.close()


def tensors_in(held: object) -> Iterator[Tensor]:
    """Every tensor that an object of this package holds, by attributes and containers; what is shared comes often."""
    if isinstance(held, torch.Tensor):
        yield held
    elif isinstance(held, nn.Module):
        yield from held.state_dict().values()
    elif isinstance(held, dict | list | tuple):
        for each in held.values() if isinstance(held, dict) else held:
            yield from tensors_in(each)
    elif type(held).__module__.startswith(__package__ or "") and not isinstance(held, Computing):
        yield from tensors_in(vars(held))
