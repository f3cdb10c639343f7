"""What a run reports, as JSON carries it: results, and the document that holds them.

A pytest-xdist worker sends a result to the reporting process as one JSON string, the report is drawn from it, and
`--sdxl-json` of the plugin and `--json` of the command write it in the same document:

- `schema_version`: raised when a key changes its meaning or goes.
- `generator`: name and version of this package.
- `gate`: `passed` (null where nothing was judged) and `summary`; null where there was no gate.
- `results`: a list of `Result`; the plugin adds `test` and `outcome` to each, `sdxl-engine score` writes what
  `score_record` gives.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdxl_engine import __version__
from sdxl_engine.metric import Metric, loadgen_metrics, score_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sdxl_engine.results import AccuracyRanges, Measurement, Scores, Verdict
    from sdxl_engine.settings import RunSettings

SCHEMA_VERSION = 1


def plain(value: object) -> Any:
    """`value` made of what JSON has; what is neither a number, a text nor a container becomes its text."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    item = getattr(value, "item", None)  # numpy's and torch's scalars
    return plain(item()) if callable(item) else str(value)


def _relative(path: Path, root: Path) -> str:
    absolute = root / path
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


@dataclass(frozen=True)
class Result:
    """One LoadGen test of one configuration, as reported; see `sdxl_engine.results` for what the fields mean.

    Args:
        deep_steps: The steps that ran the deep UNet, in the option's words; empty in results that do not tell.
        devices: How many devices drew side by side.
        asked: The run settings as the options gave them, `auto` included.
        verdict: `passed`, `line`, `reason`, `gate` and `notes`; None in performance mode.
        diagnosis: Where the gate failed, which prompts lost against the baseline, as text.
        metric_identity: What the scores were computed with, digests of weights and statistics included; empty in
            performance mode.
        log_dir: Relative to pytest's root folder, or the command's current one, where it lies below it.
    """

    mode: str
    scenario: str
    model: str
    model_opt: str
    engine: str
    precision: str
    samples: int
    valid: bool
    log_dir: str
    metrics: tuple[Metric, ...]
    errors: tuple[str, ...] = ()
    verdict: Mapping[str, Any] | None = None
    diagnosis: str = ""
    metric_identity: Mapping[str, str] = field(default_factory=dict)
    deep_steps: str = ""
    devices: int = 1
    asked: Mapping[str, Any] = field(default_factory=dict)
    settings_requested: Mapping[str, Any] = field(default_factory=dict)
    settings_effective: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, measurement: Measurement, settings: RunSettings, root: Path) -> Result:
        """The result that a measurement made with `settings` gives; below `root`, paths are relative to it."""
        loadgen, scores = measurement.loadgen, measurement.scores
        metrics = loadgen_metrics(loadgen)
        if scores is not None:
            metrics += score_metrics(scores, measurement.ranges)
        return cls(
            mode=loadgen.mode,
            scenario=loadgen.scenario,
            model=measurement.model,
            model_opt=measurement.model_opt,
            engine=measurement.engine,
            precision=measurement.precision,
            samples=loadgen.samples,
            deep_steps=measurement.deep_steps,
            devices=measurement.devices,
            valid=loadgen.valid,
            log_dir=_relative(loadgen.log_dir, root),
            metrics=metrics,
            errors=loadgen.errors,
            verdict=plain(dataclasses.asdict(measurement.verdict)) if measurement.verdict else None,
            diagnosis=measurement.diagnosis,
            metric_identity=plain(scores.identity) if scores else {},
            asked=plain(dataclasses.asdict(settings)),
            settings_requested=plain(loadgen.settings_requested),
            settings_effective=plain(loadgen.settings_effective),
            environment=plain(measurement.environment),
        )

    @property
    def engine_and_devices(self) -> str:
        """The engine's name, and on how many devices it ran where there were several: `torch x8`."""
        return self.engine if self.devices == 1 else f"{self.engine} x{self.devices}"

    def metric(self, name: str) -> Metric | None:
        """The figure called `name`, if this result has it."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self) | {"metrics": [metric.to_json() for metric in self.metrics]}

    def dumps(self) -> str:
        """As one line of JSON."""
        return json.dumps(self.to_json(), allow_nan=False, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Result:
        """The inverse of `dumps`."""
        fields = json.loads(text)
        metrics = tuple(Metric.from_json(record) for record in fields["metrics"])
        return cls(**fields | {"metrics": metrics, "errors": tuple(fields["errors"])})


def score_record(model: str, scores: Scores, ranges: AccuracyRanges | None, verdict: Verdict) -> dict[str, Any]:
    """Scores of images that no LoadGen run is known of, under the keys that `Result` has for them."""
    return {
        "model": model,
        "samples": scores.count,
        "metrics": [metric.to_json() for metric in score_metrics(scores, ranges)],
        "metric_identity": plain(scores.identity),
        "verdict": plain(dataclasses.asdict(verdict)),
    }


def document(gate: tuple[bool | None, str] | None, results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The document around results; see the module.

    Args:
        gate: Whether all gates passed (None where none of them judged anything) and a line that says so.
        results: As JSON objects.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": f"pytest-sdxl {__version__}",
        "gate": {"passed": gate[0], "summary": gate[1]} if gate is not None else None,
        "results": list(results),
    }
