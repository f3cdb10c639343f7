"""The buffers that the five networks of one pipeline read and write, and the networks bound to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.engines.base import StepEngine
from sdxl_engine.models.spec import CACHED_FEATURES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sdxl_engine.engines.base import Engine, Steps


@dataclass(frozen=True)
class Bound:
    """The buffers for one batch size and the five networks bound to them.

    Args:
        buffers: The UNets' by their own names, with `noise` for their output; the text encoders' as
            `clip1.input_ids`; the decoder's as `vae.latent` and `images`.
        run: By network: enqueues or runs it on those buffers.
        unet: The UNets' buffers by their own names.
    """

    buffers: dict[str, Tensor]
    run: dict[str, Callable[[], None]]
    unet: dict[str, Tensor]


class NetworkBuffers:
    """Buffers for the largest batch; a smaller one uses their first rows, so that another size costs no memory.

    The cached features are outputs of the deep UNet and inputs of the shallow one: the same buffers, no copy.

    Args:
        engine: Says the shapes, and binds the networks. The buffers lie on its device.
        batch_size: Most images at a time.
    """

    def __init__(self, engine: Engine, batch_size: int) -> None:
        self._engine, self._batch_size = engine, batch_size
        self._whole: dict[str, Tensor] = {}
        self._bound: dict[int, Bound] = {}
        self._steps: dict[tuple[int, tuple[float, ...]], Steps] = {}

    def bound(self, images: int) -> Bound:
        """Buffers and bound networks for a batch of `images`, made once per size.

        Raises:
            ValueError: more images than the buffers are for.
        """
        if images > self._batch_size:
            raise ValueError(f"got a batch of {images} images, the buffers are for {self._batch_size}")
        if images not in self._bound:
            self._bound[images] = self._bind(images)
        return self._bound[images]

    def steps(self, images: int, timesteps: Sequence[float]) -> Steps | None:
        """The denoising steps of a batch of `images`, where the engine shares work between them; made once."""
        if not isinstance(self._engine, StepEngine):
            return None
        key = images, tuple(timesteps)
        if key not in self._steps:
            self._steps[key] = self._engine.bind_steps(self.bound(images).unet, timesteps)
        return self._steps[key]

    def clear(self) -> None:
        """Give the buffers back."""
        self._steps.clear()
        self._bound.clear()
        self._whole.clear()

    def _bind(self, images: int) -> Bound:
        buffers = {
            name: self._rows(name, spec, doubled=doubled, images=images)
            for name, (spec, doubled) in self._tensors().items()
        }
        buffers["time_ids"].copy_(torch.tensor(self._engine.spec.time_ids))
        step = {name: buffers[name] for name in [*self._engine.networks["unet"].inputs, *CACHED_FEATURES]}
        step["latent"] = buffers["noise"]
        views = {
            "clip1": {name.removeprefix("clip1."): t for name, t in buffers.items() if name.startswith("clip1.")},
            "clip2": {name.removeprefix("clip2."): t for name, t in buffers.items() if name.startswith("clip2.")},
            "unet": step,
            "shallow_unet": step,
            "vae": {"latent": buffers["vae.latent"], "images": buffers["images"]},
        }
        return Bound(buffers, {network: self._engine.bind(network, view) for network, view in views.items()}, step)

    def _tensors(self) -> dict[str, tuple[TensorSpec, bool]]:
        """Every buffer by name, and whether it has two rows per image."""
        interfaces = self._engine.networks
        named = {
            f"{which}.{name}": (which, spec)
            for which in ("clip1", "clip2")
            for name, spec in (interfaces[which].inputs | interfaces[which].outputs).items()
        }
        named |= {name: ("unet", spec) for name, spec in interfaces["unet"].inputs.items()}
        named |= {name: ("unet", interfaces["unet"].outputs[name]) for name in CACHED_FEATURES}
        named["noise"] = ("unet", interfaces["unet"].outputs["latent"])
        named["vae.latent"] = ("vae", interfaces["vae"].inputs["latent"])
        named["images"] = ("vae", interfaces["vae"].outputs["images"])
        return {name: (spec, interfaces[network].doubled) for name, (network, spec) in named.items()}

    def _rows(self, name: str, spec: TensorSpec, *, doubled: bool, images: int) -> Tensor:
        """The first rows of a buffer, zeroed: contiguous, at the buffer's own address."""
        rows = 2 if doubled else 1
        if name not in self._whole:
            # Not zeroed as a whole: on a CPU, rows that no batch uses then take no memory.
            self._whole[name] = torch.empty(
                spec.at(rows * self._batch_size), dtype=getattr(torch, spec.dtype), device=self._engine.device
            )
        whole = self._whole[name]
        return (whole[: rows * images] if spec.batched else whole).zero_()
