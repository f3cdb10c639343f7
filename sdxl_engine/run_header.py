"""What the record of a run says of the run, and the search for one that was killed and can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.accuracy.records import RECORD, Record, read_record
from sdxl_engine.assets.captions import captions_sha256
from sdxl_engine.environment import environment
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import sha256
from sdxl_engine.run_captions import whole_run
from sdxl_engine.run_engine import engine_name, precision_in_effect
from sdxl_engine.run_system import UNSTATED, other_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.accuracy.networks import Metric
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.settings import RunSettings

LAST = "last"
"""`resume` with this value takes the newest record that fits."""


IMAGES = "images from elsewhere"
"""In the place of an engine, where images were scored that this process did not draw."""


def run_facts(settings: RunSettings, model: ModelSource, *, engine: str | None = None) -> dict[str, Any]:
    """What makes two runs the same run, except for the metric networks; `engine` where it is not the settings'."""
    captions = whole_run(settings, model)
    return {
        "model": model.name,
        "model_opt": settings.model_opt,
        "engine": engine or engine_name(settings),
        "precision": precision_in_effect(settings) if engine is None else UNSTATED,
        # None for the variant's own steps, as in records that know no others.
        "deep_steps": other_schedule(settings) or None,
        "captions": len(captions),
        "captions_sha256": captions_sha256(captions),
        "latent_sha256": sha256(model.latent) if model.latent.is_file() else None,
        "shard": settings.shard,
    }


def run_header(facts: Mapping[str, Any], metric: Metric, block: int) -> dict[str, Any]:
    """The whole header: the run and the metric; and versions, processor and block size, which decide the last bits."""
    identity = metric.identity | {"variant": metric.variant}
    return {"run": dict(facts), "metric": identity, "environment": environment() | {"block": str(block)}}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two parts of headers differ, as `name: value in one, value in other`."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return [f"{name}: {one.get(name)}, {other.get(name)}" for name in names]


def check_same_run(record: Record, header: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with the record of another run.

    Raises:
        UsageError: the run, the metric or the environment differs.
    """
    found = [
        line for part in ("run", "metric", "environment") for line in differences(record.header[part], header[part])
    ]
    if found:
        raise UsageError(
            "the record to go on with is of another run",
            got="; ".join(found),
            expected="the same in the record and now",
            source=path,
            fix=_how_to_go_on(record.header["metric"].get("device"), header["metric"].get("device")),
        )


def _how_to_go_on(theirs: str | None, ours: str | None) -> str:
    """What to do about a record of another run, by the devices that it and this run are scored on."""
    anew = "leave out the option to resume, which starts anew"
    if theirs is None or theirs == ours:
        return anew
    device = "cpu" if theirs == "cpu" else "cuda"
    return f"score on {theirs} as before: --sdxl-metrics-device={device}, or sdxl-engine --metrics-device; or {anew}"


def find_unfinished(settings: RunSettings, model: ModelSource) -> Path:
    """The record that `settings.resume` names.

    Args:
        settings: `resume` is `last`, which looks below the build folder's logs, or a folder with the record in it or
            below it.
        model: Of the settings.

    Raises:
        UsageError: there is none of this very run; says where those that there are differ.
    """
    folder = settings.build_dir / "logs" if settings.resume == LAST else Path(str(settings.resume))
    records = sorted(folder.rglob(RECORD), key=lambda path: path.stat().st_mtime, reverse=True)
    facts, reasons = run_facts(settings, model), []
    for path in records:
        try:
            found = differences(read_record(path).header["run"], facts)
        except AssetError as error:
            found = [error.what]
        if not found:
            return path
        reasons.append(f"{path}: {', '.join(found)}")
    raise UsageError(
        "there is no run to go on with",
        got="; ".join(reasons[:3]) or f"no {RECORD}",
        expected=f"the {RECORD} of a run with these settings",
        source=folder,
        fix="leave out the option to resume, which starts anew",
    )
