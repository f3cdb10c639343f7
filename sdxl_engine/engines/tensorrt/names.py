"""Where plans lie and what they are called: as NVIDIA's harness for the benchmark has them.

`build/engines/<system>/stable-diffusion-xl/<Scenario>/` and
`stable-diffusion-xl-<Network>-<Scenario>-gpu-b<images>-<precision>.custom_k_99_MaxP_<model_opt>.plan`.

Source: NVIDIA's MLPerf Inference v4.0 open submission (mlcommons/inference_results_v4.0, open/NVIDIA):
`SDXLBaseBuilder.engine_name` in code/stable-diffusion-xl/tensorrt/builder.py, `engine_dir` in code/common/harness.py,
`WorkloadSetting.shortname` in code/common/constants.py, the networks' names in network.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.models import full_size
from sdxl_engine.shapes.bundle import BUNDLE

if TYPE_CHECKING:
    from pathlib import Path

BENCHMARK = "stable-diffusion-xl"
TITLES = {
    "clip1": "CLIP",
    "clip2": "CLIPWithProj",
    "unet": "UNetXL",
    "shallow_unet": "ShallowUNetXL",
    "vae": "VAE",
}
"""The benchmark's names of the five networks."""

TIMING_CACHE = "timing.cache"


@dataclass(frozen=True)
class PlanSet:
    """The five plans of one configuration.

    Args:
        engines: `build/engines`.
        checkpoint: The model's folder. Plans of this project's own models have folders of their own, so that building
            them does not replace those of SDXL.
        scenario: `Offline`.
        model_opt: `NoOpt`, `DeepCache`, `DeepCachePruned`.
    """

    engines: Path
    checkpoint: Path
    scenario: str
    model_opt: str

    def folder(self, system: str) -> Path:
        """Where the plans for a system lie."""
        model = "-".join(filter(None, (BENCHMARK, model_label(self.checkpoint))))
        return self.engines / system / model / self.scenario

    def file_name(self, network: str, images: int | str, precision: str, model_opt: str | None = None) -> str:
        """Name of one plan; `*` for `images` or `model_opt` makes it a pattern."""
        head = f"{BENCHMARK}-{TITLES[network]}-{self.scenario}-gpu-b{images}-{precision}"
        return f"{head}.custom_k_99_MaxP_{model_opt or self.model_opt}.plan"


def model_label(checkpoint: Path) -> str:
    """`shapes` or `random` for the project's own models, nothing for a checkpoint of the user's."""
    if checkpoint.resolve() == BUNDLE.resolve():
        return "shapes"
    return full_size.NAME if checkpoint.name.startswith(f"{full_size.NAME}-") else ""


def manifest_path(plan: Path) -> Path:
    """Where a plan's manifest lies: beside it."""
    return plan.with_name(plan.name + ".json")


def log_path(plan: Path) -> Path:
    """Where TensorRT's messages of a plan's build lie: beside it."""
    return plan.with_name(plan.name + ".log")
