"""What the engine is asked, as small values: naming the inputs costs nothing, `inputs.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from sdxl_engine.models.spec import NETWORKS

STEPS = {"DeepCache": 20, "NoOpt": 5}
"""Of the denoising loop, by variant. The inputs of the UNets are taken from DeepCache's, which has the benchmark's 20;
NoOpt runs nothing but the deep UNet, which that has run ten times."""

USUAL_STEP = {"unet": 10, "shallow_unet": 11}
"""In the middle of the loop; the shallow step follows the deep one whose features it gets."""


@dataclass(frozen=True)
class Case:
    """The inputs of one network.

    Args:
        network: One of `spec.NETWORKS`.
        images: Which images, in the order of their rows: a negative and a positive row each, one row for the decoder.
            Image 0 is the one that the reference draws for the first caption; the others are it, shifted, with the
            captions that follow.
        step: For the UNets, the step of the loop that sample, timestep and features are those of.
        timestep: Put in place of the step's own.
        prompt: For the text encoders, one of `PROMPTS` in place of the captions.
    """

    network: str
    images: tuple[int, ...] = (0,)
    step: int | None = None
    timestep: float | None = None
    prompt: str | None = None

    def __str__(self) -> str:
        parts = [self.network, f"{len(self.images)} image{'s' * (len(self.images) > 1)}"]
        if self.timestep is not None:
            parts.append(f"timestep {self.timestep:g}")
        elif self.step is not None:
            parts.append(f"step {self.step}")
        if self.prompt is not None:
            parts.append(f"{self.prompt} prompt")
        return ", ".join(parts)


def usual(network: str, images: tuple[int, ...] = (0,)) -> Case:
    """The inputs of checks that are not about the inputs."""
    return Case(network, images, USUAL_STEP.get(network))


VALUES = (
    *(Case(network) for network in NETWORKS if network not in USUAL_STEP),
    *(Case("unet", step=step) for step in (0, 10, 18)),
    *(Case("shallow_unet", step=step) for step in (1, 11, 19)),
)
"""Every network on usual inputs; the UNets at the first, the middle and the last steps of their kind."""

EXTREME_TIMESTEPS = tuple(
    Case(network, step=step, timestep=timestep)
    for network, step in USUAL_STEP.items()
    for timestep in (0.0, 1.0, 340.5, 999.0)
)
"""Both ends of the training schedule, beyond those of the loop, and one between two whole timesteps."""

PROMPTS = {
    "empty": "",
    "long": "a small red circle above a large blue square on a white background, " * 20,
    "foreign": "ein kleiner roter Kreis über «крестом» 円 \N{LARGE RED CIRCLE}",
}
"""No token but start and end; more than 77 of them; and characters that a tokenizer has to take apart."""

ODD_PROMPTS = tuple(Case(network, prompt=name) for network in ("clip1", "clip2") for name in PROMPTS)
