"""The whole pipeline on an engine, with a short or a full schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.assets.captions import read_captions
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.assets.tokens import tokenise
from sdxl_engine.cache_schedule import deep_steps
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.run_system import BATCH_SIZE
from sdxl_engine.schedule import read_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.models.source import ModelSource


def draw(engine: Engine, model: ModelSource, model_opt: str, indices: Sequence[int], steps: int) -> NDArray[np.uint8]:
    """The images of some of the model's captions, from buffers that no other drawing has used.

    Args:
        engine: Runs the networks; it stays open.
        model: Where captions, latent and schedule come from.
        model_opt: `NoOpt` or `DeepCache`.
        indices: Which captions, at most a full batch.
        steps: Of the schedule.
    """
    prompts = [caption.text for caption in read_captions(model.captions)[:BATCH_SIZE]]
    pipeline = Pipeline(
        engine,
        read_schedule(model.checkpoint, steps),
        deep_steps(model_opt, steps),
        tokenise(model.checkpoint, prompts, engine.spec.tokens),
        read_latent(model.latent, engine.spec),
        BATCH_SIZE,
    )
    return pipeline.generate(np.array(indices, dtype=np.int64))


def levels_apart(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B,) root mean square difference of each image from its counterpart, in levels of 255."""
    difference = images.astype(np.float64) - others.astype(np.float64)
    levels: NDArray[np.float64] = np.sqrt((difference**2).mean(axis=(1, 2, 3)))
    return levels
