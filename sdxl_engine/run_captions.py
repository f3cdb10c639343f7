"""Which captions a run is about: the first ones of its file, or one machine's share of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.assets.captions import Caption, first_captions
from sdxl_engine.shards import shard_rows

if TYPE_CHECKING:
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.settings import RunSettings


def whole_run(settings: RunSettings, model: ModelSource) -> list[Caption]:
    """The captions of an accuracy run, all shards together, in the order of their file."""
    return first_captions(model.captions, settings.samples or model.accuracy_samples)


def own_share(settings: RunSettings, model: ModelSource) -> list[Caption]:
    """The captions that this process draws: those of its shard, or all."""
    captions = whole_run(settings, model)
    if settings.shard is None:
        return captions
    rows = shard_rows(len(captions), settings.shard)
    return captions[rows.start : rows.stop]
