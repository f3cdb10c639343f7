"""From prompts to pictures: text encoders, the denoising loop with DeepCache, decoder, post-processing.

This is the benchmark's pipeline (mlcommons/inference text_to_image; NVIDIA's v4.0 open submission for the cache), on
any engine. Each step is a method of its own, so that a variant overrides just what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sdxl_engine.models.prompts import GUIDANCE_SCALE
from sdxl_engine.models.spec import CACHED_FEATURES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from sdxl_engine.assets.tokens import TokenTable
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.schedule import EulerSchedule


@dataclass(frozen=True)
class _Bound:
    """The buffers for one batch size and the five networks bound to them."""

    buffers: dict[str, Tensor]
    run: dict[str, Callable[[], None]]


class Pipeline:
    """Draws images for prompts given by their row in a token table.

    Args:
        engine: Runs the networks.
        schedule: Timesteps and noise levels.
        deep: The steps that run the deep UNet; the others run the shallow one on the features of the last deep step.
        tokens: N prompts and the negative prompt.
        latent: (1, 4, S, S) float32, standard normal: the start of every image.
        batch_size: Most images at a time.
        guidance_scale: Of classifier-free guidance (Ho and Salimans 2022): 1 leaves the negative prompt without effect.

    Raises:
        ValueError: the first step is not deep, so there would be no features to reuse.
    """

    def __init__(
        self,
        engine: Engine,
        schedule: EulerSchedule,
        deep: Collection[int],
        tokens: TokenTable,
        latent: Tensor,
        batch_size: int,
        guidance_scale: float = GUIDANCE_SCALE,
    ) -> None:
        if 0 not in deep:
            raise ValueError(f"step 0 must be deep, got deep steps {sorted(deep)}")
        self.engine = engine
        self.spec = engine.spec
        self.schedule = schedule
        self.deep = deep
        self.tokens = tokens
        self.latent = latent.to(engine.device)
        self.batch_size = batch_size
        self.guidance_scale = guidance_scale
        self._bound: dict[int, _Bound] = {}

    @property
    def image_count(self) -> int:
        """How many prompts there are."""
        return len(self.tokens.first)

    @torch.inference_mode()
    def generate(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Draw the images of some prompts.

        Args:
            indices: (B,) rows of the token table, 1 <= B <= batch_size.

        Returns:
            (B, H, W, 3) uint8, RGB, C-contiguous.
        """
        rows = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        bound = self._bind(len(rows))
        self.encode_prompts(bound.buffers, bound.run, rows)
        latents = self.denoise(bound.buffers, bound.run, self.initial_latents(len(rows)))
        return self.post_process(self.decode(bound.buffers, bound.run, latents))

    def encode_prompts(self, buffers: dict[str, Tensor], run: dict[str, Callable[[], None]], rows: Tensor) -> None:
        """Run both text encoders; negative rows come first."""
        images = len(rows)
        for which, (prompt, negative) in {
            "clip1": (self.tokens.first, self.tokens.negative_first),
            "clip2": (self.tokens.second, self.tokens.negative_second),
        }.items():
            ids = torch.cat([negative.expand(images, -1), prompt[rows]])
            buffers[f"{which}.input_ids"].copy_(ids)
            run[which]()
        hidden = [buffers[f"{which}.hidden_states"] for which in ("clip1", "clip2")]
        buffers["encoder_hidden_states"].copy_(torch.cat(hidden, dim=-1))
        buffers["text_embeds"].copy_(buffers["clip2.text_embeddings"])

    def initial_latents(self, images: int) -> Tensor:
        """(B, 4, S, S): the fixed latent at the first noise level, once per image."""
        return (self.latent * self.schedule.init_noise_sigma).repeat(images, 1, 1, 1)

    def denoise(self, buffers: dict[str, Tensor], run: dict[str, Callable[[], None]], latents: Tensor) -> Tensor:
        """The Euler loop: (B, 4, S, S) at the first noise level to (B, 4, S, S) without noise."""
        sigmas = self.schedule.sigmas.tolist()
        for step, timestep in enumerate(self.schedule.timesteps.tolist()):
            sigma, following = sigmas[step], sigmas[step + 1]
            scaled = latents / (sigma**2 + 1) ** 0.5
            buffers["sample"].copy_(torch.cat([scaled, scaled]))
            buffers["timestep"].fill_(timestep)
            run["unet" if step in self.deep else "shallow_unet"]()
            noise = self.guide(buffers["noise"].float())
            latents = latents + noise * (following - sigma)
        return latents

    def guide(self, noise: Tensor) -> Tensor:
        """Classifier-free guidance: (2B, 4, S, S), negative rows first, to (B, 4, S, S)."""
        negative, positive = noise.chunk(2)
        return negative + self.guidance_scale * (positive - negative)

    def decode(self, buffers: dict[str, Tensor], run: dict[str, Callable[[], None]], latents: Tensor) -> Tensor:
        """(B, 4, S, S) latents to (B, 3, H, W) in about [-1, 1]."""
        buffers["vae.latent"].copy_(latents / self.spec.vae_scaling_factor)
        run["vae"]()
        return buffers["images"]

    def post_process(self, images: Tensor) -> NDArray[np.uint8]:
        """(B, 3, H, W) in about [-1, 1] to (B, H, W, 3) uint8: clamped to [0, 1], times 255, rounded half to even."""
        levels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        array: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return array

    def warm_up(self) -> None:
        """Draw one full batch and throw it away, so that lazy allocation is not timed."""
        self.generate(np.arange(self.batch_size, dtype=np.int64) % self.image_count)

    def close(self) -> None:
        """Give the engine's memory back."""
        self._bound.clear()
        self.engine.close()

    def _bind(self, images: int) -> _Bound:
        """Buffers and bound networks for a batch of `images`, made once per size."""
        if images not in self._bound:
            interfaces = self.engine.networks

            def fresh(network: str, spec: TensorSpec) -> Tensor:
                shape = spec.at(interfaces[network].rows(images))
                return torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=self.engine.device)

            buffers: dict[str, Tensor] = {}
            for which in ("clip1", "clip2"):
                for name, spec in (interfaces[which].inputs | interfaces[which].outputs).items():
                    buffers[f"{which}.{name}"] = fresh(which, spec)
            for name, spec in interfaces["unet"].inputs.items():
                buffers[name] = fresh("unet", spec)
            for name in CACHED_FEATURES:
                buffers[name] = fresh("unet", interfaces["unet"].outputs[name])
            buffers["noise"] = fresh("unet", interfaces["unet"].outputs["latent"])
            buffers["vae.latent"] = fresh("vae", interfaces["vae"].inputs["latent"])
            buffers["images"] = fresh("vae", interfaces["vae"].outputs["images"])
            buffers["time_ids"].copy_(torch.tensor(self.spec.time_ids))
            step = {name: buffers[name] for name in [*interfaces["unet"].inputs, *CACHED_FEATURES]}
            step["latent"] = buffers["noise"]
            views = {
                "clip1": {name.removeprefix("clip1."): t for name, t in buffers.items() if name.startswith("clip1.")},
                "clip2": {name.removeprefix("clip2."): t for name, t in buffers.items() if name.startswith("clip2.")},
                "unet": step,
                "shallow_unet": step,
                "vae": {"latent": buffers["vae.latent"], "images": buffers["images"]},
            }
            run = {network: self.engine.bind(network, view) for network, view in views.items()}
            self._bound[images] = _Bound(buffers, run)
        return self._bound[images]
