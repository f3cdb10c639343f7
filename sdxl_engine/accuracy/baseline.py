"""What a run is compared with: another run's log folder, or the scores that `shapes` ships with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdxl_engine.accuracy.records import RECORD, read_record
from sdxl_engine.assets.captions import read_captions
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import read_json, write_json
from sdxl_engine.models.source import SHAPES
from sdxl_engine.shapes import bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.accuracy.networks import MetricNetworks
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.settings import RunSettings

DECIMALS = 4
"""Of the CLIP scores in a stored baseline."""


@dataclass(frozen=True)
class ScoredRun:
    """One side of a comparison.

    Args:
        name: Where it came from, for the reader.
        header: What the record says of the run; `metric` is the identity of the metric networks and their variant.
        clip: CLIP score by caption id, 100 times cosine; NaN for an image that has none.
        digests: Hex SHA-256 of the image by caption id; empty where they were not kept.
        folder: Where its images may lie; None where there are none.
    """

    name: str
    header: Mapping[str, Any]
    clip: Mapping[int, float]
    digests: Mapping[int, str] = field(default_factory=dict)
    folder: Path | None = None


def scored_run(path: Path) -> ScoredRun:
    """A run from its log folder, or from the record in it.

    Raises:
        AssetError: there is no record, or it is damaged.
    """
    file = path / RECORD if path.is_dir() else path
    record = read_record(file)
    return ScoredRun(str(path), record.header, record.clip, record.digests, file.parent)


def stored_baseline(model: ModelSource, captions: Mapping[int, str]) -> ScoredRun:
    """The baseline that comes with a model: CLIP scores without images.

    Args:
        model: Only `shapes` has one, the fp32 NoOpt reference's on the captions that its ranges hold for.
        captions: Those of the run by id.

    Raises:
        UsageError: the model has none, or the captions are not its own.
        AssetError: the file is damaged.
    """
    if model.name != SHAPES:
        raise _none(f"the model {model.name}, which comes without one")
    own = {row.id: row.text for row in read_captions(model.checkpoint / bundle.CAPTIONS)}
    if any(own.get(key) != text for key, text in captions.items()):
        raise _none("captions that are not the model's own")
    path = model.checkpoint / bundle.BASELINE
    value = read_json(path, "the stored baseline")
    try:
        clip = {key: float(score) for key, score in enumerate(value["clip"])}
        header = {"metric": dict(value["metric"])}
        name = str(value["origin"])
    except (KeyError, TypeError, ValueError) as error:
        raise AssetError(
            "the stored baseline is malformed",
            got=repr(error),
            expected="origin, metric, and clip as a list of scores",
            source=path,
        ) from None
    return ScoredRun(name, header, clip)


def baseline_clip(settings: RunSettings, model: ModelSource, captions: Mapping[int, str]) -> Mapping[int, float]:
    """CLIP score by caption id of what a run is compared with; empty where there is nothing to compare with.

    Args:
        settings: Of the run; `baseline` takes the place of the model's own.
        model: Of the settings.
        captions: Those of the run by id.

    Raises:
        AssetError: a baseline that was named has no record, or a damaged one.
    """
    if settings.baseline is not None:
        return scored_run(settings.baseline).clip
    try:
        return stored_baseline(model, captions).clip
    except UsageError:
        return {}


def write_baseline(path: Path, origin: str, networks: MetricNetworks, clip: Mapping[int, float]) -> None:
    """Write what `stored_baseline` reads.

    Args:
        path: The file.
        origin: What gave the scores, for the reader.
        networks: What they were scored with.
        clip: CLIP score by caption id; the ids are 0, 1, 2 and so on.
    """
    if list(clip) != list(range(len(clip))):
        raise ValueError("the ids of a stored baseline are 0, 1, 2 and so on")
    scores = [round(score, DECIMALS) for score in clip.values()]
    metric = networks.identity | {"variant": networks.variant}
    write_json(path, {"origin": origin, "metric": metric, "clip": scores})


def _none(got: str) -> UsageError:
    return UsageError(
        "there is no baseline to compare with",
        got=got,
        expected=f"the log folder of another run of the same captions, with its {RECORD}",
        fix="name one: --sdxl-baseline=DIR with pytest, --baseline DIR with sdxl-engine compare",
    )
