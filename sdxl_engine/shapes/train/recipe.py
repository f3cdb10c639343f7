"""Every number of the training recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One optimisation: AdamW, linear warm-up, a constant rate, and a linear decay to zero over the last part.

    Args:
        steps: Optimiser steps.
        batch: Samples per step.
        rate: Peak learning rate.
        warmup: Steps of linear warm-up.
        decay: Share of the steps, at the end, over which the rate falls to zero.
        weight_decay: AdamW's decoupled weight decay.
    """

    steps: int
    batch: int
    rate: float
    warmup: int
    decay: float
    weight_decay: float = 0.01

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.rate * rising * falling


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The pruned UNet of DeepCachePruned; see `sdxl_engine/pruning`.

    Args:
        share: Of the deep step's FLOPs, what may be left.
        prompts: That importance is measured on.
        timesteps: Of each of those prompts' steps, how many.
        trained_prompts: Whose trajectories are trained on.
        steps: Optimiser steps.
        batch: States per step, two rows each.
        rate: Highest learning rate.
    """

    share: float = 0.68
    prompts: int = 16
    timesteps: int = 5
    trained_prompts: int = 16384
    steps: int = 8000
    batch: int = 256
    rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole training, stage by stage.

    Args:
        pruning: The stage `pruned`.
        pool: Captions rendered and encoded once, from which the denoiser's batches are drawn.
        single_share: Share of training captions with one object.
        unconditional: Share of the denoiser's training captions replaced by the negative prompt.
        ema: Decay per step of the denoiser's averaged weights, which are the ones kept.
        captions: Validation captions.
        reference_counts: Counts of captions for which reference scores and ranges are stored; the last is the default.
        performance_samples: Default captions of a performance run.
        clip_percent: Width of the CLIP range to each side of the reference's score, percent.
        fid_percent: Likewise for FID.
    """

    vae: Stage = Stage(steps=3500, batch=96, rate=2e-3, warmup=100, decay=0.7)
    clip: Stage = Stage(steps=5000, batch=1024, rate=1e-3, warmup=300, decay=0.8, weight_decay=0.05)
    features: Stage = Stage(steps=2000, batch=512, rate=2e-3, warmup=100, decay=0.8)
    # Not longer, and at a constant rate: see docs/shapes.md, "Why no more training".
    denoiser: Stage = Stage(steps=4300, batch=512, rate=1e-3, warmup=500, decay=0.0)
    pruning: Pruning = Pruning()
    pool: int = 400_000
    single_share: float = 0.1
    unconditional: float = 0.1
    ema: float = 0.999
    captions: int = 5000
    reference_counts: tuple[int, ...] = (128, 512)
    performance_samples: int = 128
    clip_percent: float = 0.2
    fid_percent: float = 2.0


def tiny() -> Recipe:
    """The same recipe in miniature: seconds on a CPU, to test the code; it learns nothing."""

    def stage(batch: int) -> Stage:
        return Stage(steps=6, batch=batch, rate=1e-3, warmup=1, decay=0.5)

    return Recipe(
        vae=stage(4),
        clip=stage(8),
        features=stage(8),
        denoiser=stage(4),
        pruning=Pruning(share=0.97, prompts=1, timesteps=1, trained_prompts=2, steps=2, batch=1),
        pool=16,
        captions=96,
        reference_counts=(2, 4),
    )
