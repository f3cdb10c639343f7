"""Which model a run uses, and every file that comes with it. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.ranges import OFFICIAL, ranges_from_dict
from sdxl_engine.assets.captions import read_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.files import read_json
from sdxl_engine.models import full_size, pruned
from sdxl_engine.shapes import bundle

if TYPE_CHECKING:
    from sdxl_engine.results import AccuracyRanges
    from sdxl_engine.settings import RunSettings

AUTO = "auto"
SHAPES = "shapes"
DOWNLOADED = Path("models/SDXL/official_pytorch/fp16/stable_diffusion_fp16/checkpoint_pipe")
"""Below the build folder: where the benchmark's download step leaves the checkpoint."""

METRICS = Path("models/metrics")
"""Below the build folder: the weights of the official metrics and val2014.npz."""


@dataclass(frozen=True)
class ModelSource:
    """One model and what comes with it.

    Args:
        name: As shown beside every score.
        checkpoint: A diffusers-layout folder.
        captions: The prompts (TSV).
        latent: The initial latent (.npy).
        metrics: Folder of the metric networks.
        metric_variant: Which networks they are: `shapes`, or the benchmark's own, `mlperf`.
        ranges: Ranges of the model's own, one per count of captions; a checkpoint has none, see `accuracy/gate.py`.
        pruned_ranges: Likewise, of `DeepCachePruned`, whose images are others.
        accuracy_samples: Captions of an accuracy run unless asked otherwise.
        performance_samples: Captions of a performance run unless asked otherwise.
        min_duration_ms: LoadGen's shortest performance run.
    """

    name: str
    checkpoint: Path
    captions: Path
    latent: Path
    metrics: Path
    metric_variant: str
    ranges: tuple[AccuracyRanges, ...]
    accuracy_samples: int
    performance_samples: int
    min_duration_ms: int
    pruned_ranges: tuple[AccuracyRanges, ...] = ()

    def ranges_of(self, model_opt: str) -> tuple[AccuracyRanges, ...]:
        """The model's own ranges that hold for a variant."""
        return self.pruned_ranges if model_opt == pruned.MODEL_OPT else self.ranges

    def check_variant(self, model_opt: str, *, source: str = "model_opt") -> None:
        """Refuse a variant whose networks this model does not have, rather than run another under its name.

        Raises:
            UsageError: the variant needs a pruned UNet, and there is none.
        """
        if model_opt == pruned.MODEL_OPT and not pruned.has_pruned(self.checkpoint):
            raise UsageError(
                f"the model {self.name} has no pruned UNet",
                got=f"{model_opt}, and no {self.checkpoint / pruned.PRUNED}",
                expected=f"NoOpt or DeepCache, or a folder {pruned.PRUNED} in the checkpoint's",
                source=source,
                fix=None if self.name == full_size.NAME else self._how_to_prune,
            )

    @property
    def _how_to_prune(self) -> str:
        own = self.checkpoint / pruned.PRUNED
        return (
            f"sdxl-engine prune --model {self.name} --output PRUNED, then "
            f"sdxl-engine distill --model {self.name} --pruned PRUNED --output {own}"
        )

    def check_scores(self, *, source: str = "model") -> None:
        """Refuse to score what has no meaning, rather than show a number for it.

        Raises:
            UsageError: the weights are random.
        """
        if self.name == full_size.NAME:
            raise UsageError(
                "random weights have no accuracy",
                got=self.name,
                expected="a trained model, or performance alone",
                source=source,
                fix="--sdxl-test-mode=PerformanceOnly, or sdxl-engine run --test-mode PerformanceOnly",
            )

    def verify(self) -> None:
        """Compare the files with their manifest, where there is one; make random weights where they are not there.

        Raises:
            AssetError: a file differs.
        """
        if self.name == SHAPES:
            bundle.verified(self.checkpoint)
        if self.name == full_size.NAME:
            full_size.make_random_checkpoint(self.checkpoint.parents[1])


def model_of(settings: RunSettings) -> ModelSource:
    """The model that a run's settings ask for, see `resolve_model`; with the files they put in place of its own."""
    model = resolve_model(settings.model, settings.build_dir, settings.captions)
    return model if settings.metrics_dir is None else dataclasses.replace(model, metrics=settings.metrics_dir)


def resolve_model(model: str, build_dir: Path, captions: Path | None = None, *, source: str = "model") -> ModelSource:
    """The model asked for; `auto` is the downloaded checkpoint where it is there, else `shapes`.

    Args:
        model: `auto`, `shapes`, `random` or a folder.
        build_dir: Where downloads lie.
        captions: Overrides the model's own captions file.
        source: Where the choice came from, for the message.

    Raises:
        UsageError: neither a known name nor a checkpoint's folder.
        AssetError: the captions file is malformed.
    """
    if model == AUTO:
        model = str(build_dir / DOWNLOADED) if (build_dir / DOWNLOADED / "model_index.json").is_file() else SHAPES
    if model == SHAPES:
        return _shapes(captions)
    if model == full_size.NAME:
        return _random(build_dir, captions)
    folder = Path(model)
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"unknown model {model!r}",
            got="no model_index.json in it" if folder.is_dir() else "no such folder",
            expected="auto, shapes, random, or the folder of a diffusers-layout SDXL checkpoint",
            source=source,
        )
    data = build_dir / "data" / "coco" / "SDXL"
    rows = captions or data / "captions_5k_final.tsv"
    return ModelSource(
        name=str(folder),
        checkpoint=folder,
        captions=rows,
        latent=data / "latents.npy",
        metrics=build_dir / METRICS,
        metric_variant=OFFICIAL.variant,
        ranges=(),
        accuracy_samples=_at_most(OFFICIAL.count, captions),
        performance_samples=_at_most(OFFICIAL.count, captions),
        min_duration_ms=600_000,
    )


def _at_most(count: int, captions: Path | None) -> int:
    """The default count, or all of a captions file of the user's that holds fewer."""
    return count if captions is None else min(count, len(read_captions(captions)))


def _shapes(captions: Path | None) -> ModelSource:
    folder = bundle.BUNDLE
    data = read_json(folder / bundle.RANGES, "the ranges of shapes")

    def own(key: str) -> tuple[AccuracyRanges, ...]:
        # Other captions have other scores: the ranges hold for the bundle's own.
        return () if captions else tuple(ranges_from_dict(entry) for entry in data.get(key, ()))

    return ModelSource(
        name=SHAPES,
        checkpoint=folder,
        captions=captions or folder / bundle.CAPTIONS,
        latent=folder / bundle.LATENT,
        metrics=folder / bundle.METRICS,
        metric_variant=SHAPES,
        ranges=own(bundle.OWN_RANGES),
        pruned_ranges=own(bundle.PRUNED_RANGES),
        accuracy_samples=_at_most(data["default_samples"], captions),
        performance_samples=_at_most(data["default_performance_samples"], captions),
        min_duration_ms=2_000,
    )


def _random(build_dir: Path, captions: Path | None) -> ModelSource:
    """The full-size architecture: LoadGen's settings are the benchmark's, prompts those of `shapes`."""
    checkpoint = full_size.random_checkpoint(build_dir)
    rows = captions or bundle.BUNDLE / bundle.CAPTIONS
    return ModelSource(
        name=full_size.NAME,
        checkpoint=checkpoint,
        captions=rows,
        latent=checkpoint / full_size.LATENT,
        metrics=build_dir / METRICS,
        metric_variant="none",
        ranges=(),
        accuracy_samples=_at_most(OFFICIAL.count, captions),
        performance_samples=_at_most(OFFICIAL.count, captions),
        min_duration_ms=600_000,
    )
