"""Measures with ModelOpt, over the pipeline's own steps, what range each layer's numbers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import UsageError
from sdxl_engine.export.quiet import quiet
from sdxl_engine.shapes import bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from sdxl_engine.export.quantised_layers import Amax
    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.models.spec import ModelSpec

BATCH = 8
_WATCHED: dict[str, Any] = {
    "quant_cfg": [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
    ],
    "algorithm": "max",
}
"""ModelOpt's `INT8_DEFAULT_CFG` but for the layers that it leaves out: recipes say themselves what they keep. Largest
magnitudes are the same for any number of bits, since nothing is rounded while they are collected."""


def calibration_captions(checkpoint: Path, recipe: Recipe) -> list[str]:
    """The captions that ranges are measured on: of the training split, none of which is ever scored.

    Raises:
        UsageError: there are none for this checkpoint.
    """
    if checkpoint != bundle.BUNDLE:
        raise UsageError(
            f"there are no calibration captions for {recipe.precision} here",
            got=checkpoint,
            expected="the model shapes, whose training captions are at hand",
            source="precision",
        )
    from sdxl_engine.shapes.grammar import split, training_captions
    from sdxl_engine.shapes.train.recipe import Recipe as TrainingRecipe

    _, scenes = split()
    return [text for text, _ in training_captions(scenes, recipe.captions, TrainingRecipe().single_share, recipe.seed)]


def ranges_of(unet: nn.Module, draw: Callable[[], None]) -> dict[str, Amax]:
    """Watch a module's layers while it runs.

    Args:
        unet: ModelOpt puts its own layers in the place of linear layers and convolutions and leaves them there.
        draw: Runs the module on everything that is to be seen.

    Returns:
        By layer's name; weights' by output channel.
    """
    with quiet("modelopt"):
        import modelopt.torch.quantization as modelopt

        from sdxl_engine.export.quantised_layers import Amax

        modelopt.quantize(unet, _WATCHED, lambda _module: draw())
        found = {}
        for name, layer in unet.named_modules():
            quantisers: list[Any] = [getattr(layer, f"{which}_quantizer", None) for which in ("input", "weight")]
            if all(each is not None and each.is_enabled for each in quantisers):
                one, each_channel = (each.amax.detach().clone().float() for each in quantisers)
                found[name] = Amax(one.reshape(()), each_channel.flatten())
    return found


def calibrated(checkpoint: Path, spec: ModelSpec, captions: list[str], model_opt: str = "NoOpt") -> dict[str, Amax]:
    """The ranges of the UNet's layers over the benchmark's 20 steps, with its latent and guidance, every step deep.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        captions: To draw.
        model_opt: Which variant's deep UNet.
    """
    import numpy as np
    import torch

    from sdxl_engine.assets.latents import read_latent
    from sdxl_engine.assets.tokens import tokenise
    from sdxl_engine.cache_schedule import deep_steps
    from sdxl_engine.engines.base import EngineRequest
    from sdxl_engine.engines.torch_engine import TorchEngine
    from sdxl_engine.models.load import load_networks
    from sdxl_engine.models.prompts import STEPS
    from sdxl_engine.pipeline import Pipeline
    from sdxl_engine.schedule import read_schedule

    networks = load_networks(checkpoint, model_opt=model_opt)
    pipeline = Pipeline(
        TorchEngine(EngineRequest(checkpoint=checkpoint, spec=spec, cache=checkpoint), networks),
        read_schedule(checkpoint, STEPS),
        deep_steps("NoOpt", STEPS),
        tokenise(checkpoint, captions, spec.tokens),
        read_latent(checkpoint / bundle.LATENT, spec),
        BATCH,
    )

    def draw() -> None:
        for start in range(0, len(captions), BATCH):
            pipeline.generate(np.arange(start, min(start + BATCH, len(captions))))

    unet = networks["unet"].get_submodule("unet")
    with torch.no_grad():
        return ranges_of(unet, draw)
