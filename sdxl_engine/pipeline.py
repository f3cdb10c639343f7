"""From prompts to pictures: text encoders, the denoising loop with DeepCache, decoder, post-processing.

This is the benchmark's pipeline (mlcommons/inference text_to_image; NVIDIA's v4.0 open submission for the cache), on
any engine. Each step is a method of its own, so that a variant overrides just what it changes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sdxl_engine.gpu_batches import GpuBatches
from sdxl_engine.loadgen.in_flight import Later
from sdxl_engine.models.prompts import GUIDANCE_SCALE
from sdxl_engine.network_buffers import NetworkBuffers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from sdxl_engine.assets.tokens import TokenTable
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.loadgen.source import Pending
    from sdxl_engine.schedule import EulerSchedule


class Pipeline:
    """Draws images for prompts given by their row in a token table; a `TwoPhaseSource`.

    Token table, latent, buffers and every step lie on the engine's device. On a GPU nothing between the row numbers and
    the uint8 images waits for the host, and a whole batch becomes one CUDA graph (`GpuBatches` says what is where). The
    methods from `encode_prompts` to `post_process` then run when a batch size is warmed up and captured, not for each
    batch. Setting any attribute (another schedule, a method of one's own) drops the graphs, so methods that set one as
    they draw are never captured; after a change that sets none, call `forget_graphs`. On the CPU a batch is drawn when
    its result is asked for.

    Args:
        engine: Runs the networks.
        schedule: Timesteps and noise levels.
        deep: The steps that run the deep UNet; the others run the shallow one on the features of the last deep step.
        tokens: N prompts and the negative prompt.
        latent: (1, 4, S, S) float32, standard normal: the start of every image.
        batch_size: Most images at a time.
        guidance_scale: Of classifier-free guidance (Ho and Salimans 2022): 1 leaves the negative prompt without effect.
        graphs: Whether batches become CUDA graphs where the engine is capturable.

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
        *,
        graphs: bool = True,
    ) -> None:
        if 0 not in deep:
            raise ValueError(f"step 0 must be deep, got deep steps {sorted(deep)}")
        self._engine = engine
        self.spec = engine.spec
        self.schedule = schedule
        self.deep = deep
        self.tokens = tokens.to(engine.device)
        self.latent = latent.to(engine.device)
        self.batch_size = batch_size
        self.guidance_scale = guidance_scale
        self._networks = NetworkBuffers(engine, batch_size)
        self._gpu: GpuBatches | None = None
        if engine.device.type == "cuda":
            capturable = engine.capabilities.capturable
            self._gpu = GpuBatches(engine.device, batch_size, capturable=capturable, graphs=graphs)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.forget_graphs()

    @property
    def engine(self) -> Engine:
        """Runs the networks; a pipeline keeps the one that it was made with, since its buffers are bound to it."""
        return self._engine

    @property
    def image_count(self) -> int:
        """How many prompts there are."""
        return len(self.tokens.first)

    @property
    def captured(self) -> tuple[int, ...]:
        """The batch sizes that are drawn by a CUDA graph from now on."""
        return self._gpu.captured if self._gpu is not None else ()

    def generate(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Draw the images of some prompts.

        Args:
            indices: (B,) rows of the token table, 1 <= B <= batch_size.

        Returns:
            (B, H, W, 3) uint8, RGB, C-contiguous; the caller's own.

        Raises:
            ValueError: there are no indices, or more than `batch_size`.
            IndexError: one is outside the token table.
        """
        return self.start(indices).result().copy()

    @torch.inference_mode()
    def start(self, indices: NDArray[np.int64]) -> Pending:
        """Start a batch; see `TwoPhaseSource.start`, and `generate` for arguments and errors.

        Returns:
            Its `result()` gives (B, H, W, 3) uint8, RGB: on a GPU pinned memory, which the batch after the next
            overwrites.
        """
        rows = np.array(indices, dtype=np.int64)
        if not 1 <= len(rows) <= self.batch_size:
            raise ValueError(f"got {len(rows)} indices, expected 1 to {self.batch_size}")
        # On a GPU an index outside the table would end the process's use of the device.
        if rows.min() < 0 or rows.max() >= self.image_count:
            raise IndexError(f"got indices from {rows.min()} to {rows.max()}, there are {self.image_count} prompts")
        if self._gpu is not None:
            return self._gpu.start(rows, self._draw)
        return Later(partial(self._draw_on_cpu, torch.from_numpy(rows)))

    @torch.inference_mode()
    def _draw_on_cpu(self, rows: Tensor) -> NDArray[np.uint8]:
        images: NDArray[np.uint8] = self._draw(rows).numpy()
        return images

    def _draw(self, rows: Tensor) -> Tensor:
        """(B,) int64 to (B, H, W, 3) uint8, both on the engine's device."""
        bound = self._networks.bound(len(rows))
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
        sigmas, timesteps = self.schedule.sigmas.tolist(), self.schedule.timesteps.tolist()
        steps = self._networks.steps(len(latents), timesteps)
        if steps is not None:
            steps.begin()
        for step, timestep in enumerate(timesteps):
            sigma, following = sigmas[step], sigmas[step + 1]
            scaled = latents / (sigma**2 + 1) ** 0.5
            buffers["sample"].copy_(torch.cat([scaled, scaled]))
            if steps is not None:
                (steps.deep if step in self.deep else steps.shallow)(step)
            else:
                buffers["timestep"].fill_(timestep)
                run["unet" if step in self.deep else "shallow_unet"]()
            noise = self.guide(buffers["noise"].float())
            latents = latents + noise * (following - sigma)
        if steps is not None:
            steps.end()
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

    def post_process(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in about [-1, 1] to (B, H, W, 3) uint8: clamped to [0, 1], times 255, rounded half to even."""
        levels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous()

    def warm_up(self) -> None:
        """Draw batches and throw them away, so that lazy allocation is not timed.

        On the CPU one full batch. On a GPU also one as small as the last of all prompts, each until its graph is made.
        """
        sizes, passes = [self.batch_size], 1
        if self._gpu is not None:
            passes = self._gpu.passes()
            if ragged := self.image_count % self.batch_size:
                sizes.append(ragged)
        for size in sizes:
            for _ in range(passes):
                self.generate(np.arange(size, dtype=np.int64) % self.image_count)

    def forget_graphs(self) -> None:
        """Drop the CUDA graphs: what a batch does has changed. The next batches make new ones."""
        if (gpu := vars(self).get("_gpu")) is not None:
            gpu.forget()

    def close(self) -> None:
        """Give the pipeline's and the engine's memory back."""
        if self._gpu is not None:
            self._gpu.close()
        self._networks.clear()
        self.engine.close()
