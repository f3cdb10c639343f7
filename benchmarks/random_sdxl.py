"""SDXL at full size with seeded random weights, for benchmarks of whole pipelines: made on the GPU, kept on the host.

A contender takes a copy to the GPU, so that its peak memory is its own and nothing is left of the one before.
"""

from __future__ import annotations

import copy
import functools
import gc
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.cuda.calibration import exercise, measured_scales
from sdxl_engine.engines.cuda.engine import CudaEngine
from sdxl_engine.export.calibration_set import CalibrationSet
from sdxl_engine.models.full_size import CONFIGS, SEED, SPEC, new_part
from sdxl_engine.models.load import Decoder, TextEncoder
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.unet_split import DeepUnet, ShallowUnet, keep_shallow_part
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.pruning import flops
from sdxl_engine.pruning.layers import layers_of, smaller_config, smaller_unet
from sdxl_engine.pruning.prompts import grammar_prompts
from sdxl_engine.schedule import read_schedule
from sdxl_engine.shapes.bundle import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.engines.cuda.layers import Compute
    from sdxl_engine.models.spec import ModelSpec
    from sdxl_engine.pruning.layers import Layer

BATCH = 8
FP16_DECODER = replace(SPEC, upcast_decoder=False)
"""Random weights stay in fp16's range; engine `cuda` needs no such leave."""
CAPTIONS = tuple(grammar_prompts(128, SEED))
LATENT = np.random.default_rng(SEED).standard_normal((1, 4, 128, 128), dtype=np.float32)
DEEP_SHARE = 0.68
"""Of the FLOPs of a deep step: what NVIDIA's v4.0 submission of DeepCachePruned makes of it, by its published times."""
_DROPPED_FROM = ("down_blocks.2.", "mid_block.", "up_blocks.0.")
"""Where the transformers work at 32x32."""


def make_parts() -> dict[str, Any]:
    """The four networks of a checkpoint in fp16, on the CPU; drawn on the GPU, where it takes seconds."""
    parts = {}
    for name in CONFIGS:
        torch.manual_seed(SEED)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float16)
        try:
            with torch.device("cuda"):
                made = new_part(name, CONFIGS[name])
        finally:
            torch.set_default_dtype(default)
        parts[name] = made.eval().requires_grad_(requires_grad=False).to("cpu")
    torch.cuda.empty_cache()
    return parts


def networks(
    parts: dict[str, Any], dtype: torch.dtype = torch.float16, dropped: Collection[Layer] = ()
) -> dict[str, nn.Module]:
    """Copies on the GPU, named and cut as `load_networks` does it.

    Args:
        parts: Of `make_parts`.
        dtype: Of the weights.
        dropped: Transformer layers that the deep UNet lacks; the shallow one is then the full one's.
    """
    taken = {name: copy.deepcopy(each) for name, each in parts.items() if name != "unet" or not dropped}
    deep = smaller_unet(parts["unet"], dropped) if dropped else taken["unet"]
    found: dict[str, nn.Module] = {
        "clip1": TextEncoder(taken["text_encoder"]),
        "clip2": TextEncoder(taken["text_encoder_2"]),
        "unet": DeepUnet(deep),
        "vae": Decoder(taken["vae"]),
    }
    if dropped:
        shallow = copy.deepcopy(parts["unet"])
        keep_shallow_part(shallow)
        found["shallow_unet"] = ShallowUnet(shallow)
    else:
        found["shallow_unet"] = ShallowUnet(deep)
    return {name: module.eval().to("cuda", dtype) for name, module in found.items()}


def layers_to_drop(unet: Any, share: float = DEEP_SHARE) -> list[Layer]:
    """Transformer layers at 32x32, evenly spaced, without which a deep step has about `share` of its FLOPs."""
    step = flops.deep_step(unet.config, SPEC)
    candidates = [layer for layer in layers_of(unet) if layer.attention.startswith(_DROPPED_FROM)]
    each = sum(flops.layer_flops(step, layer) for layer in candidates) / len(candidates)
    count = round((1 - share) * sum(step.values()) / each)
    return [candidates[int((place + 0.5) * len(candidates) / count)] for place in range(count)]


def request(precision: str, model_opt: str = "DeepCache", spec: ModelSpec = SPEC) -> EngineRequest:
    """For an engine that is given its networks; tokenizers and schedule are those of `shapes`, as `random`'s are."""
    return EngineRequest(
        checkpoint=BUNDLE,
        spec=spec,
        cache=Path("build/engines"),
        model_opt=model_opt,
        precision=precision,
        batch_size=BATCH,
        device="cuda",
    )


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    torch.cuda.empty_cache()


def cuda_engine(
    parts: dict[str, Any], compute: Compute, precision: str, model_opt: str, dropped: Collection[Layer] = ()
) -> CudaEngine:
    """Engine `cuda`, calibrated and tuned as a build does it; its buffers are given back.

    Args:
        parts: Of `make_parts`.
        compute: What tuning finds is kept there.
        precision: `fp16` or `fp8`.
        model_opt: The variant.
        dropped: See `networks`.
    """
    asked = request(precision, model_opt)
    scales = None
    if precision == "fp8":
        with tempfile.TemporaryDirectory() as folder:
            latent = Path(folder) / "latents.npy"
            np.save(latent, LATENT)
            drawn = CalibrationSet(CAPTIONS[:BATCH], latent)
            scales = measured_scales(asked, drawn, networks(parts, dropped=dropped), compute)
        free()
    engine = CudaEngine(asked, networks(parts, dropped=dropped), compute, scales)
    exercise(engine, BATCH)
    return engine


class NotingPipeline(Pipeline):
    """Keeps the last batch's final latents; for pipelines without graphs."""

    final: Tensor | None = None

    def decode(self, buffers: dict[str, Tensor], run: dict[str, Callable[[], None]], latents: Tensor) -> Tensor:
        """See `Pipeline.decode`."""
        self.final = latents.clone()
        return super().decode(buffers, run, latents)


def pipeline(
    engine: Engine, model_opt: str, *, batch: int = BATCH, graphs: bool = True, kind: type[Pipeline] = Pipeline
) -> Pipeline:
    """The benchmark's pipeline of one variant on an engine."""
    tokens = tokenise(BUNDLE, list(CAPTIONS), SPEC.tokens)
    deep = deep_steps(model_opt, STEPS)
    schedule = read_schedule(BUNDLE, STEPS)
    return kind(engine, schedule, deep, tokens, torch.from_numpy(LATENT), batch, graphs=graphs)


def final_latents(engine: Engine, batch: int = BATCH, model_opt: str = "DeepCache") -> tuple[Tensor, NDArray[np.uint8]]:
    """The final latents (2, 4, 128, 128) float32 and the images of the first two prompts.

    Args:
        engine: Draws them.
        batch: How many it draws: a full batch where it is tuned for that size, 2 where it is slow.
        model_opt: The variant.
    """
    drawn = pipeline(engine, model_opt, batch=batch, graphs=False, kind=NotingPipeline)
    images = drawn.generate(np.arange(batch))
    assert isinstance(drawn, NotingPipeline)
    assert drawn.final is not None
    return drawn.final[:2].float(), images[:2]


@dataclass(frozen=True)
class Work:
    """Multiplications and additions of the parts for one image, as `torch.utils.flop_counter` counts them.

    Args:
        text: Both text encoders, both prompts.
        deep: A deep step.
        shallow: A shallow step.
        decoder: The decoder.
    """

    text: int
    deep: int
    shallow: int
    decoder: int

    def image(self, model_opt: str) -> int:
        """Of one image."""
        deep = len(deep_steps(model_opt, STEPS))
        return self.text + deep * self.deep + (STEPS - deep) * self.shallow + self.decoder


def work(unet: Any, dropped: Collection[Layer] = (), left_out: tuple[str, ...] = ()) -> Work:
    """From shapes alone; nothing is computed.

    Args:
        unet: The full one.
        dropped: Layers that the deep step lacks.
        left_out: Modules that the shallow step does not run, by the beginning of their names.
    """
    deep = flops.deep_step(smaller_config(unet, dropped), SPEC)
    shallow = flops.shallow_step(unet.config, SPEC)
    text, decoder = _ends()
    return Work(
        text=text,
        deep=sum(deep.values()),
        shallow=sum(count for name, count in shallow.items() if not left_out or not name.startswith(left_out)),
        decoder=decoder,
    )


@functools.cache
def _ends() -> tuple[int, int]:
    """Of the text encoders and of the decoder."""
    with torch.device("meta"):
        texts = [TextEncoder(new_part(name, CONFIGS[name])) for name in ("text_encoder", "text_encoder_2")]
        decoder = Decoder(new_part("vae", CONFIGS["vae"]))
        ids, latent = torch.zeros(2, SPEC.tokens, dtype=torch.int32), torch.zeros(1, 4, 128, 128)
    counts = []
    for modules, given in ((texts, ids), ([decoder], latent)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for module in modules:
                module(given)
        counts.append(counter.get_total_flops())
    return counts[0], counts[1]
