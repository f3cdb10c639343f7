"""Measures with ModelOpt, over the pipeline's own steps, how large each layer's numbers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdxl_engine.export.quiet import quiet
from sdxl_engine.models.prompts import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from sdxl_engine.export.calibration_set import CalibrationSet
    from sdxl_engine.export.statistics import LayerStatistics
    from sdxl_engine.models.spec import ModelSpec

BATCH = 8


def statistics_of(unet: nn.Module, draw: Callable[[], None], steps: int = STEPS) -> dict[str, LayerStatistics]:
    """Watch a module's layers while it runs.

    Largest magnitudes are the same for any number of bits, since nothing is rounded while they are collected.

    Args:
        unet: ModelOpt puts its own layers in the place of linear layers and convolutions and leaves them there.
        draw: Runs the module on everything that is to be seen, a whole number of times `steps`.
        steps: Denoising steps of a batch.

    Returns:
        By layer's name; on the CPU.
    """
    with quiet("modelopt"):
        import modelopt.torch.quantization as modelopt
        import torch

        from sdxl_engine.export.statistics import LayerStatistics
        from sdxl_engine.export.step_calibrator import StepCalibrator

        def watched(layer: str, axis: int) -> dict[str, Any]:
            calibrator = (StepCalibrator, (steps, axis))
            cfg = {"num_bits": 8, "axis": None, "calibrator": calibrator}
            return {"parent_class": layer, "quantizer_name": "*input_quantizer", "cfg": cfg}

        # ModelOpt's `INT8_DEFAULT_CFG` but for the layers that it leaves out: recipes say themselves what they keep.
        config = {
            "quant_cfg": [
                {"quantizer_name": "*", "enable": False},
                {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
                watched("nn.Linear", -1),
                watched("nn.Conv2d", 1),
            ],
            "algorithm": "max",
        }
        modelopt.quantize(unet, config, lambda _module: draw())
        found = {}
        for name, layer in unet.named_modules():
            quantisers: list[Any] = [getattr(layer, f"{which}_quantizer", None) for which in ("input", "weight")]
            if all(each is not None and each.is_enabled for each in quantisers):
                # ModelOpt has no other way to what its calibrators have seen beside the range itself.
                seen, weight = quantisers[0]._calibrator, quantisers[1].amax.detach().cpu().float().flatten()
                steps_seen = seen.steps if isinstance(layer, torch.nn.Conv2d) else None
                found[name] = LayerStatistics(seen.channels, steps_seen, weight)
    return found


def calibrated(
    checkpoint: Path, spec: ModelSpec, drawn: CalibrationSet, model_opt: str = "NoOpt"
) -> dict[str, LayerStatistics]:
    """The statistics of the UNet's layers over the benchmark's 20 steps, with its guidance, every step deep.

    The reference engine draws, in fp32, on a GPU where torch sees one.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        drawn: Captions and latent.
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
    from sdxl_engine.pipeline import Pipeline
    from sdxl_engine.schedule import read_schedule

    networks = load_networks(checkpoint, model_opt=model_opt)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = Pipeline(
        TorchEngine(EngineRequest(checkpoint=checkpoint, spec=spec, cache=checkpoint, device=device), networks),
        read_schedule(checkpoint, STEPS),
        deep_steps("NoOpt", STEPS),
        tokenise(checkpoint, list(drawn.captions), spec.tokens),
        read_latent(drawn.latent, spec),
        BATCH,
        graphs=False,  # a graph would run the layers without the calibrators
    )

    def draw() -> None:
        for start in range(0, len(drawn.captions), BATCH):
            pipeline.generate(np.arange(start, min(start + BATCH, len(drawn.captions))))

    unet = networks["unet"].get_submodule("unet")
    with torch.no_grad():
        return statistics_of(unet, draw)
