"""What is measured when engine `cuda` is built: the scales of fp8 layers, and the fastest way to compute each layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import NOOPT, deep_steps
from sdxl_engine.engines.cuda.engine import CudaEngine
from sdxl_engine.engines.cuda.precision import scales_of
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.network_buffers import NetworkBuffers
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.schedule import read_schedule

if TYPE_CHECKING:
    from torch import nn

    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.engines.cuda.layers import Compute
    from sdxl_engine.engines.cuda.precision import Scales, Seen
    from sdxl_engine.export.calibration_set import CalibrationSet


def measured_scales(
    request: EngineRequest,
    drawn: CalibrationSet,
    networks: dict[str, nn.Module] | None = None,
    compute: Compute | None = None,
) -> Scales:
    """The scales of the layers that run in fp8, over all steps of the calibration captions, drawn in fp16.

    Args:
        request: Checkpoint, variant and device.
        drawn: Captions and latent. A batch that is not full is left out, if it is not the only one.
        networks: As `CudaEngine` takes them.
        compute: As `CudaEngine` takes it.
    """
    seen: Seen = {}
    engine = CudaEngine(replace(request, precision="fp16"), networks, compute, seen=seen)
    captions = list(drawn.captions)
    size = min(request.batch_size, len(captions))
    pipeline = Pipeline(
        engine,
        read_schedule(request.checkpoint, STEPS),
        deep_steps(NOOPT, STEPS),
        tokenise(request.checkpoint, captions, request.spec.tokens),
        read_latent(drawn.latent, request.spec),
        size,
        graphs=False,
    )
    # Every step deep, and where shallow steps have weights of their own, those too.
    for deep in {deep_steps(NOOPT, STEPS), deep_steps(request.model_opt, STEPS) if "shallow_unet" in seen else None}:
        if deep is not None:
            pipeline.deep = deep
            for start in range(0, len(captions) - size + 1, size):
                pipeline.generate(np.arange(start, start + size))
    scales = scales_of(seen)
    pipeline.close()
    return scales


@torch.inference_mode()
def exercise(engine: CudaEngine, images: int) -> None:
    """Run everything once on random numbers at one batch size, so that each problem has been met, and tuned."""
    buffers = NetworkBuffers(engine, images)
    bound = buffers.bound(images)
    generator = torch.Generator(engine.device).manual_seed(0)
    for name in ("sample", "encoder_hidden_states", "text_embeds", "vae.latent"):
        bound.buffers[name].normal_(generator=generator)
    steps = buffers.steps(images, [0.0])
    assert steps is not None
    for network in ("clip1", "clip2"):
        bound.run[network]()
    steps.begin()
    steps.deep(0)
    steps.shallow(0)
    steps.end()
    bound.run["vae"]()
    buffers.clear()
