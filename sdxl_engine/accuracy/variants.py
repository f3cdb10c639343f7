"""The metric networks of a model, whichever variant it is scored with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.accuracy.loading import load_statistics
from sdxl_engine.accuracy.official_files import FILES, require_files
from sdxl_engine.accuracy.ranges import OFFICIAL
from sdxl_engine.errors import AssetError
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.accuracy.fid import Statistics
    from sdxl_engine.accuracy.networks import MetricNetworks
    from sdxl_engine.models.source import ModelSource

TORCHMETRICS = "torchmetrics"


def load_metrics(model: ModelSource, metrics: str, device: str) -> MetricNetworks:
    """Load the metric variant that a model is scored with.

    Args:
        model: What is scored.
        metrics: `RunSettings.metrics`.
        device: Where the networks run; see `usable_device`.

    Raises:
        UnavailableError: a library, an official file or the device is not here.
        AssetError: a file is damaged or not the published one.
    """
    if metrics == TORCHMETRICS:
        from sdxl_engine.accuracy.torchmetrics_variant import as_torchmetrics

        return as_torchmetrics(load_metrics(model, "auto", device))
    if model.metric_variant == OFFICIAL.variant:
        from sdxl_engine.accuracy.official import load_official_metrics

        return load_official_metrics(model.metrics, device=device)
    from sdxl_engine.accuracy.networks import load_shapes_metrics

    return load_shapes_metrics(model.metrics, device)


def statistics_of(model: ModelSource, dims: int, identity: Mapping[str, str]) -> Statistics:
    """The statistics of the true images alone, for scores that follow from a record; see `load_statistics`.

    Args:
        model: What was scored.
        dims: Of the features.
        identity: Of the metric that the record was scored with, which names the digest of its statistics.

    Raises:
        UnavailableError: the official files are not here.
        AssetError: the statistics are not those of the record, or damaged.
    """
    path = model.metrics / "statistics.npz"
    if model.metric_variant == OFFICIAL.variant:
        path = model.metrics / FILES["statistics"].name
        require_files(model.metrics, {"statistics": FILES["statistics"]})
    statistics = load_statistics(path, dims)
    found, recorded = sha256(path), identity.get("statistics_sha256")
    if found != recorded:
        raise AssetError(
            "the record is of scores against other statistics of true images",
            got=f"SHA-256 {found}",
            expected=f"{recorded}, as in the record",
            source=path,
            fix="use the files, and the version of this package, that the record was made with",
        )
    return statistics
