"""Which ranges judge a run, and why those: the gates `official`, `published` and `custom`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.custom import CUSTOM, custom_ranges
from sdxl_engine.accuracy.published import PUBLISHED
from sdxl_engine.accuracy.ranges import OFFICIAL, judge, unjudged
from sdxl_engine.assets.benchmark_inputs import other_inputs
from sdxl_engine.errors import UsageError
from sdxl_engine.results import INTERVAL_PERCENT
from sdxl_engine.run_system import other_schedule

if TYPE_CHECKING:
    from sdxl_engine.models.source import ModelSource
    from sdxl_engine.results import AccuracyRanges, Scores, Verdict
    from sdxl_engine.settings import RunSettings

_PUBLISHED = "published"


@dataclass(frozen=True)
class Gate:
    """What a run is judged by.

    Args:
        name: `official`, `published`, `custom`, or `none`.
        why: Why this one, for the reader.
        ranges: None where there are none for this run.
        lacking: Why there are none.
        label: What the scores are not, shown whatever the verdict.
        others: Ranges whose verdicts are shown and decide nothing.
    """

    name: str
    why: str
    ranges: AccuracyRanges | None = None
    lacking: str = ""
    label: str = ""
    others: tuple[AccuracyRanges, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"

    def judge(self, scores: Scores) -> Verdict:
        """The verdict, with the gate and what else there is to say of the scores."""
        verdict = judge(scores, self.ranges) if self.ranges is not None else unjudged(scores, self.lacking)
        others = [
            f"for information, {ranges.name}: {judge(scores, ranges).line.removeprefix('accuracy: ')}"
            for ranges in self.others
        ]
        notes = tuple(note for note in (_intervals(scores), self.label, *others) if note)
        return dataclasses.replace(verdict, gate=str(self), notes=notes)


def choose(settings: RunSettings, model: ModelSource, count: int) -> Gate:
    """The gate of an accuracy run.

    Args:
        settings: `gate`, and ranges of the user's; checked.
        model: Of the settings.
        count: How many captions the run has.

    Raises:
        UsageError: the gate that was asked for does not exist for this model and variant, or the file of ranges has
            none for the run, or the model's weights are random.
        AssetError: the captions file or the file of ranges is missing or malformed.
    """
    model.check_scores()
    if settings.shard is not None:
        lacking = f"shard {settings.shard}: to be judged with the other shards, by sdxl-engine score merge"
        return Gate("none", "a shard of a run", lacking=lacking)
    gate = _of_inputs(settings, model, count)
    other = other_schedule(settings)
    return _of_other_steps(gate, f"{other}: not a score of {settings.model_opt}") if other else gate


def _of_other_steps(gate: Gate, label: str) -> Gate:
    """A range says what a variant scores; a run with other steps than the variant's is shown beside it, not judged."""
    if gate.name == CUSTOM or gate.ranges is None:
        return dataclasses.replace(gate, label="; ".join(filter(None, (gate.label, label))))
    return dataclasses.replace(gate, ranges=None, lacking=label, others=(gate.ranges, *gate.others))


def _of_inputs(settings: RunSettings, model: ModelSource, count: int) -> Gate:
    """The gate by metric, model, captions and latent, for the variant's own steps."""
    if settings.metrics != "auto":
        return _other_metrics(settings, count)
    if model.metric_variant != OFFICIAL.variant:
        return _custom(settings, model, count) if settings.custom_gate else _own(settings, model, count)
    unofficial = other_inputs(model.captions, model.latent)
    if not unofficial and count != OFFICIAL.count:
        unofficial = f"{count} of {OFFICIAL.count} captions"
    gate = _custom(settings, model, count) if settings.custom_gate else _known(settings)
    if not unofficial:
        known = (OFFICIAL, *(ranges for variant, ranges in PUBLISHED.items() if variant == settings.model_opt))
        others = tuple(ranges for ranges in known if ranges is not gate.ranges)
        return dataclasses.replace(gate, why=f"{gate.why}, the benchmark's {count} captions", others=others)
    label = f"{unofficial}: not an official score"
    if gate.name == CUSTOM:
        return dataclasses.replace(gate, label=label)
    lacking = label if gate.name == OFFICIAL.name else f"{unofficial}: not comparable with the published score"
    return dataclasses.replace(gate, ranges=None, lacking=lacking)


def _other_metrics(settings: RunSettings, count: int) -> Gate:
    """Scores of a metric that no published range is of."""
    if settings.custom_gate:
        ranges = custom_ranges(settings, settings.metrics, count)
        return Gate(CUSTOM, ranges.origin, ranges, label=f"metric variant {settings.metrics}: not the benchmark's")
    lacking = f"scores of the metric variant {settings.metrics} compare with no known range"
    return Gate("none", f"metrics {settings.metrics}", lacking=lacking)


def _known(settings: RunSettings) -> Gate:
    """Official or published, for the benchmark's own captions and latent."""
    asked, variant = settings.gate, settings.model_opt
    if asked == _PUBLISHED and variant not in PUBLISHED:
        raise UsageError(
            f"there are no published scores of {variant}",
            got=asked,
            expected=f"{_PUBLISHED} with {' or '.join(PUBLISHED)}; auto or official; or custom with ranges of your own",
            source="gate",
        )
    if asked != "auto":
        ranges = PUBLISHED[variant] if asked == _PUBLISHED else OFFICIAL
        return Gate(asked, f"asked for, checkpoint, {variant}", ranges)
    if variant == "DeepCachePruned":
        why = f"checkpoint, {variant} whose published scores lie outside the official range"
        return Gate(_PUBLISHED, why, PUBLISHED[variant])
    return Gate(OFFICIAL.name, f"checkpoint, {variant}", OFFICIAL)


def _own(settings: RunSettings, model: ModelSource, count: int) -> Gate:
    """The ranges that a model brings along."""
    if settings.gate == OFFICIAL.name:
        raise UsageError(
            f"the official range does not hold for the model {model.name}",
            got=settings.gate,
            expected="auto or published, or custom with ranges of your own",
            source="gate",
            fix="name a checkpoint's folder as the model",
        )
    asked = "asked for, " if settings.gate != "auto" else ""
    own = model.ranges_of(settings.model_opt)
    ranges = next((entry for entry in own if entry.count == count), None)
    counts = ", ".join(str(entry.count) for entry in own) or "no count of these captions"
    lacking = "" if ranges else f"{model.name} has ranges for {counts} captions, this run had {count}"
    return Gate(_PUBLISHED, f"{asked}{model.name} with ranges of its own", ranges, lacking)


def _custom(settings: RunSettings, model: ModelSource, count: int) -> Gate:
    ranges = custom_ranges(settings, model.metric_variant, count)
    return Gate(CUSTOM, ranges.origin, ranges)


def _intervals(scores: Scores) -> str:
    """One line with the intervals of those scores that have one."""
    parts = [
        f"{name} {score:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
        for name, score, ends in (
            ("CLIP", scores.clip, scores.clip_interval),
            ("FID", scores.fid, scores.fid_interval),
        )
        if ends is not None
    ]
    return f"{INTERVAL_PERCENT:g} % interval: {', '.join(parts)}" if parts else ""
