"""diffusers' own SDXL pipeline on random weights: eager, compiled, or with the package DeepCache."""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from random_sdxl import BATCH, CAPTIONS, LATENT, SPEC

from sdxl_engine.models.prompts import GUIDANCE_SCALE, NEGATIVE_PROMPT, STEPS
from sdxl_engine.shapes.bundle import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NOT_RUN = ("up_blocks.2.resnets.0.", "up_blocks.2.resnets.1.")
"""What a shallow step of the package DeepCache leaves out, with `cache_branch_id=0`, beside what ours does."""


def make(parts: dict[str, Any]) -> Any:
    """A StableDiffusionXLPipeline in fp16 on the GPU, with copies of the networks; its decoder stays in fp16."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    taken = {name: copy.deepcopy(each).to("cuda") for name, each in parts.items()}
    # Random weights stay in fp16's range; in fp32 the decoder would be slower.
    taken["vae"].register_to_config(force_upcast=False)
    tokenizers = {
        name: CLIPTokenizer.from_pretrained(BUNDLE / name, local_files_only=True, model_max_length=SPEC.tokens)
        for name in ("tokenizer", "tokenizer_2")
    }
    scheduler = EulerDiscreteScheduler.from_pretrained(BUNDLE, subfolder="scheduler", local_files_only=True)
    pipe = StableDiffusionXLPipeline(**taken, **tokenizers, scheduler=scheduler, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def compile_networks(pipe: Any) -> None:
    """UNet and decoder by torch.compile, channels last, with queries, keys and values in one product."""
    pipe.fuse_qkv_projections()
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.unet.forward = torch.compile(pipe.unet.forward, dynamic=False)
    pipe.vae.decode = torch.compile(pipe.vae.decode, dynamic=False)


def enable_deep_cache(pipe: Any) -> None:
    """Every other step shallow, by horseee's package."""
    from DeepCache import DeepCacheSDHelper

    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()


def draw_on_gpu(pipe: Any) -> torch.Tensor:
    """A batch of images, (8, 1024, 1024, 3) uint8 on the GPU: pictures of a library's own would cost it time here."""
    latents = torch.from_numpy(LATENT).to("cuda", torch.float16).repeat(BATCH, 1, 1, 1)
    images = pipe(
        prompt=list(CAPTIONS[:BATCH]),
        negative_prompt=[NEGATIVE_PROMPT] * BATCH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE_SCALE,
        latents=latents,
        output_type="pt",
    ).images
    levels: torch.Tensor = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return levels


def draw(pipe: Any) -> NDArray[Any]:
    """A batch of images on the host."""
    return draw_on_gpu(pipe).cpu().numpy()


def part_times(pipe: Any, *, cached: bool) -> dict[str, float]:
    """Milliseconds of each part of one more batch, by events around diffusers' own calls; medians of the steps."""
    spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            result = function(*given, **named)
            events[1].record()
            spans[name].append(events)
            return result

        return call

    pipe.encode_prompt = timed("text", pipe.encode_prompt)
    pipe.unet.forward = timed("unet", pipe.unet.forward)
    pipe.vae.decode = timed("decoder", pipe.vae.decode)
    images = draw_on_gpu(pipe)
    timed("copy", images.cpu)()
    torch.cuda.synchronize()
    times = {name: [first.elapsed_time(last) for first, last in pairs] for name, pairs in spans.items()}
    steps = times.pop("unet")
    times["deep"] = steps[::2] if cached else steps
    if cached:
        times["shallow"] = steps[1::2]
    return {name: statistics.median(found) for name, found in times.items()}
