"""When each step happens: the Euler noise schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class EulerSchedule:
    """Timesteps and noise levels of an Euler sampler, in the order of denoising.

    Args:
        timesteps: (N,) float32, what the UNet is told, falling.
        sigmas: (N + 1,) float32, noise levels, falling to 0.
        init_noise_sigma: What unit-normal latents are multiplied by at the start.

    Source: Karras et al. 2022, Algorithm 2 without churn; spacing and `init_noise_sigma` as diffusers'
    EulerDiscreteScheduler has them for `leading`.
    """

    timesteps: NDArray[np.float32]
    sigmas: NDArray[np.float32]
    init_noise_sigma: float

    def __len__(self) -> int:
        return len(self.timesteps)


def euler_schedule(
    steps: int,
    *,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    train_steps: int = 1000,
    steps_offset: int = 1,
) -> EulerSchedule:
    """The benchmark's schedule: scaled-linear betas, `leading` spacing.

    Args:
        steps: Denoising steps.
        beta_start: First beta of the training schedule.
        beta_end: Last beta.
        train_steps: Length of the training schedule.
        steps_offset: Added to every timestep.
    """
    betas = np.linspace(beta_start**0.5, beta_end**0.5, train_steps, dtype=np.float32) ** 2
    # The running product is kept in float64, as torch does it, and rounded once.
    kept = np.cumprod(1 - betas, dtype=np.float64).astype(np.float32)
    noise_to_signal = ((1 - kept) / kept) ** np.float32(0.5)
    timesteps = (np.arange(steps) * (train_steps // steps))[::-1].astype(np.float32) + steps_offset
    sigmas = np.interp(timesteps, np.arange(train_steps), noise_to_signal).astype(np.float32)
    start = float((sigmas.max() ** 2 + 1) ** 0.5)
    return EulerSchedule(timesteps, np.append(sigmas, np.float32(0)), start)


def read_schedule(checkpoint: Path, steps: int) -> EulerSchedule:
    """The schedule of a checkpoint's `scheduler/scheduler_config.json`.

    Raises:
        AssetError: the file is missing, or asks for another sampler than the benchmark's.
    """
    path = checkpoint / "scheduler" / "scheduler_config.json"
    config = read_json(path, "the scheduler's configuration")
    expected = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "leading"}
    found = {key: config.get(key) for key in expected}
    if found != expected:
        raise AssetError("the scheduler is not the benchmark's", got=found, expected=expected, source=path)
    return euler_schedule(
        steps,
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        train_steps=config["num_train_timesteps"],
        steps_offset=config["steps_offset"],
    )
