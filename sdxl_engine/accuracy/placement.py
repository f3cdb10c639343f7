"""Where images are scored: on a GPU where there is one, and then in a process of its own."""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.networks import library_missing
from sdxl_engine.accuracy.precision import usable_device
from sdxl_engine.accuracy.process_scorer import ProcessScorer
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.accuracy.variants import load_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdxl_engine.accuracy.scorer import ImageScorer
    from sdxl_engine.models.source import ModelSource


def chosen_device(asked: str) -> str:
    """The device that images are scored on here.

    Args:
        asked: `RunSettings.metrics_device`.

    Returns:
        `cpu`, `cuda` or `cuda:<number>`; of `auto`, `cuda` where PyTorch sees a GPU.

    Raises:
        UnavailableError: there is no such GPU, something turns TF32 on in it, or PyTorch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise library_missing(error, "a score") from None
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    usable_device(asked)
    return asked


@contextmanager
def open_scorer(model: ModelSource, metrics: str, device: str) -> Iterator[ImageScorer]:
    """The scorer of a model, on the CPU in this process and on a GPU in another.

    PyTorch's switches for TF32 hold for a whole process. The scorer computes without it; were it to set them beside
    an engine that draws on a GPU, it would change what that engine computes meanwhile.

    Args:
        model: What is scored.
        metrics: `RunSettings.metrics`.
        device: `RunSettings.metrics_device`.

    Raises:
        UnavailableError: see `chosen_device`.
        SdxlError: see `load_metrics` and `ProcessScorer`.
    """
    place = chosen_device(device)
    if place == "cpu":
        yield Scorer(load_metrics(model, metrics, place))
    else:
        with closing(ProcessScorer(partial(load_metrics, model, metrics, place))) as scorer:
            yield scorer
