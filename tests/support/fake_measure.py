"""Stands in for `sdxl_engine.measure`: gives the figures it was told to, at once, and logs each call."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.accuracy.custom import custom_ranges
from sdxl_engine.accuracy.gate import Gate
from sdxl_engine.errors import AssetError, EngineError, UnavailableError, unknown_choice
from sdxl_engine.results import AccuracyRanges, LoadgenResult, Measurement, Range, Scores
from sdxl_engine.run_system import other_schedule, schedule_in_effect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sdxl_engine.settings import RunSettings

ENGINES = ("torch", "onnxruntime", "tensorrt")
RANGES = AccuracyRanges("shapes-512", Range(90.0, 91.0), Range(1.0, 2.0), 512, "fp32 NoOpt, 512 captions", "shapes")
GATE = Gate("published", "shapes with ranges of its own", RANGES)


def accuracy_run(clip: float = 90.5, fid: float = 1.5, **changes: object) -> Measurement:
    """A measurement of an accuracy run; intact unless told otherwise."""
    scores = Scores(clip, fid, 512, "shapes", clip_interval=(90.25, 90.75), fid_interval=(1.375, 1.625))
    loadgen = LoadgenResult("Offline", "AccuracyOnly", None, True, 512, 60.0, (), Path("build/logs/a"))
    return dataclasses.replace(
        Measurement("shapes", "DeepCache", "onnxruntime", "fp32", loadgen, scores, RANGES, GATE.judge(scores)),
        **changes,
    )


def performance_run(**changes: object) -> Measurement:
    """A measurement of a performance run; `changes` replace LoadGen's figures."""
    loadgen = LoadgenResult(
        "Offline", "PerformanceOnly", 2.85, True, 128, 44.9, (), Path("build/logs/p"), peak_memory_bytes=2**30
    )
    return Measurement("shapes", "DeepCache", "onnxruntime", "fp32", dataclasses.replace(loadgen, **changes))


@dataclass
class FakePipeline:
    """Draws the number of each caption."""

    settings: RunSettings
    log: Callable[[str], None]

    @property
    def engine(self) -> str:
        return f"engine of {self.settings.model_opt}"

    def generate(self, indices: Sequence[int]) -> list[int]:
        return list(indices)

    def close(self) -> None:
        self.log(f"close {self.settings.model_opt}")


@dataclass
class FakeMeasure:
    """An object in the place of the module.

    Args:
        clip: The CLIP score of every accuracy run.
        fid: Its FID.
        loadgen: Figures of LoadGen to replace, in both modes.
        measurement: Fields of the measurement to replace, in accuracy mode.
        installed: The engines that are installed.
        lines: What the run says of its progress.
        raises: `EngineError`, `UnavailableError` or `ZeroDivisionError` out of every run.
        broken_captions: Whether `check` finds a broken file.
    """

    clip: float = 90.5
    fid: float = 1.5
    loadgen: dict[str, object] = field(default_factory=dict)
    measurement: dict[str, object] = field(default_factory=dict)
    installed: tuple[str, ...] = ("torch", "onnxruntime")
    lines: tuple[str, ...] = ()
    raises: str = ""
    broken_captions: bool = False

    def _log(self, settings: RunSettings, text: str) -> None:
        with (settings.build_dir.parent / "calls.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def check(self, settings: RunSettings) -> None:
        self._log(settings, f"check {settings.model_opt}")
        if settings.engine not in (*ENGINES, "auto"):
            raise unknown_choice("engine", settings.engine, ENGINES, source="--sdxl-engine")
        if settings.engine != "auto" and settings.engine not in self.installed:
            raise UnavailableError(
                f"the engine {settings.engine} is not installed",
                expected="the package tensorrt",
                fix="pip install 'pytest-sdxl[tensorrt]'",
            )
        if self.broken_captions:
            raise AssetError("the captions file has no column caption", source="captions.tsv")

    def describe(self, settings: RunSettings) -> dict[str, str]:
        self._log(settings, "describe")
        if self.broken_captions:
            raise AssetError("the captions file has no column caption", source="captions.tsv")
        other = other_schedule(settings)
        return {
            "model": "shapes",
            "engine": self._engine(settings),
            **({"deep steps": schedule_in_effect(settings)} if other else {}),
            "samples": str(settings.samples or 512),
        }

    def _engine(self, settings: RunSettings) -> str:
        return "onnxruntime" if settings.engine == "auto" else settings.engine

    def measure(self, settings: RunSettings, mode: str, progress: Callable[[str], None] | None = None) -> Measurement:
        self._log(settings, f"measure {settings.model_opt} {mode}")
        for line in self.lines:
            progress(line)
        if self.raises == "EngineError":
            raise EngineError("the network unet did not build", got="a bad node", fix="read the log")
        if self.raises == "UnavailableError":
            raise UnavailableError("the accelerator went away", fix="bring it back")
        if self.raises:
            raise ZeroDivisionError
        accuracy = mode == "AccuracyOnly"
        run = accuracy_run(self.clip, self.fid) if accuracy else performance_run()
        if accuracy and settings.custom_gate:
            ranges = custom_ranges(settings, run.scores.variant, run.scores.count)
            verdict = Gate("custom", ranges.origin, ranges).judge(run.scores)
            run = dataclasses.replace(run, ranges=ranges, verdict=verdict)
        if accuracy and (other := other_schedule(settings)):
            verdict = Gate("none", "other steps", lacking=other).judge(run.scores)
            run = dataclasses.replace(run, ranges=None, verdict=verdict)
        if accuracy and settings.shard is not None:
            verdict = Gate("none", "a shard of a run", lacking=f"shard {settings.shard}").judge(run.scores)
            run = dataclasses.replace(run, ranges=None, verdict=verdict, shard=settings.shard)
        if accuracy:
            run = dataclasses.replace(run, **self.measurement)
        loadgen = dataclasses.replace(
            run.loadgen,
            log_dir=settings.build_dir / "logs" / settings.model_opt / mode,
            settings_requested={"min_duration_ms": 600000},
            settings_effective={"min_duration_ms": 600000},
            **self.loadgen,
        )
        return dataclasses.replace(
            run,
            model_opt=settings.model_opt,
            deep_steps=schedule_in_effect(settings),
            engine=self._engine(settings),
            devices=len(settings.device.split(",")),
            loadgen=loadgen,
            environment={"python": "3.11"},
        )

    def captions(self, settings: RunSettings) -> list[str]:
        return ["a red circle", "a blue square"]

    def open_pipeline(self, settings: RunSettings) -> FakePipeline:
        self._log(settings, f"open {settings.model_opt}")
        if self.raises == "EngineError":
            raise EngineError("the network unet did not build", got="a bad node", fix="read the log")
        return FakePipeline(settings, lambda text: self._log(settings, text))
