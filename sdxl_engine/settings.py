"""What one run is asked to do: the choices behind the plugin's options and the command line's, checked in one place."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_engine.cache_schedule import check_schedule
from sdxl_engine.errors import UsageError, unknown_choice
from sdxl_engine.shards import parse_shard

MODEL_OPTS = ("NoOpt", "DeepCache", "DeepCachePruned")
SCENARIOS = ("Offline",)
TEST_MODES = ("AccuracyOnly", "PerformanceOnly", "SubmissionRun")
"""SubmissionRun is LoadGen's name for both of the others, one after the other."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp8", "int8")
"""`auto` is the engine's own default. Which of the others an engine runs in is for its entry to say."""
GRAPHS = ("auto", "on", "off")
"""Whether whole batches are drawn by CUDA graphs: `auto` where the engine can be captured; `on` insists."""
GATES = ("auto", "official", "published", "custom")
SAVED_IMAGES = ("worst", "all", "none")
METRICS = ("auto", "torchmetrics")
DEVICES = ("auto", "cpu", "cuda", "cuda:<number>")
"""Of the engine also several of them, with commas: `cuda:0,cuda:1`."""
RESPONSES = ("digests", "images")
"""What LoadGen gets and logs for each image of an accuracy run: its SHA-256, or the image."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One benchmark configuration, as asked for.

    Args:
        model: `shapes`, or a folder with a checkpoint; `auto` takes `build/models/SDXL` if it is there.
        model_opt: One of `MODEL_OPTS`.
        engine: The name of a registered engine, or `auto`.
        precision: One of `PRECISIONS`.
        device: Where the engine runs, one of `DEVICES`, or several with commas, each with an engine of its own; `auto`
            takes a GPU if there is one that the engine runs on, and of a full-size model as many as the machine's
            configuration has.
        batch_size: Images per batch; None takes the machine's configuration's, or 8.
        graphs: One of `GRAPHS`.
        shallow_steps: Shallow steps after each deep one, 0 to 19; 0 is NoOpt's schedule. None takes the machine's
            configuration's, or the variant's own.
        deep_steps: The deep steps themselves, `0-3,6,9`, in place of a count of shallow ones.
        scenario: One of `SCENARIOS`.
        test_mode: One of `TEST_MODES`.
        samples: How many captions, the first in the order of the captions file; None takes the model's default.
        pipeline: `module:callable` that builds the pipeline under test in the run's process; None takes our own.
        captions: A captions file (TSV) in place of the model's own.
        build_dir: Where engines, logs and results go.
        timeout_s: Seconds without an answered batch after which a run is killed.
        shard: `i/n`: draw and score only this machine's share of the captions; None takes all of them.
        resume: A folder with the record of a killed accuracy run to go on with, or `last`; None starts anew.
        responses: One of `RESPONSES`. A submission needs the images in LoadGen's log: 31 GB for 5000 of them.
        metrics: `auto`, the networks that the model is scored with; or `torchmetrics`, the same weights with images
            prepared as torchmetrics does it, whose scores are for comparing and not for a gate of the benchmark.
        metrics_dir: A folder with the metric networks in place of the model's own.
        metrics_device: Where images are scored, one of `DEVICES`; `auto` is a GPU where the process that
            scores sees one.
        save_images: One of `SAVED_IMAGES`: which images an accuracy run writes to `images/<id>.png` in its log folder;
            the worst are those that lost most CLIP score against the baseline.
        baseline: Log folder, or record in it, of the accuracy run that this one is compared with where its gate fails;
            None takes the one that comes with the model.
        gate: One of `GATES`; `auto` chooses by model and variant, or takes the ranges that are given.
        clip_range: `LO,HI` for the CLIP score, of which one may be left out.
        fid_range: `LO,HI` for FID.
        ranges: A file (JSON) of ranges in place of both.
    """

    model: str = "auto"
    model_opt: str = "NoOpt"
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    graphs: str = "auto"
    shallow_steps: int | None = None
    deep_steps: str | None = None
    scenario: str = "Offline"
    test_mode: str = "SubmissionRun"
    samples: int | None = None
    pipeline: str | None = None
    captions: Path | None = None
    build_dir: Path = Path("build")
    timeout_s: float = 600.0
    shard: str | None = None
    resume: str | None = None
    responses: str = "digests"
    save_images: str = "worst"
    baseline: Path | None = None
    metrics: str = "auto"
    metrics_dir: Path | None = None
    metrics_device: str = "auto"
    gate: str = "auto"
    clip_range: str | None = None
    fid_range: str | None = None
    ranges: Path | None = None

    @property
    def custom_gate(self) -> bool:
        """Whether ranges of the user's judge the run."""
        return self.gate == "custom" or (self.clip_range, self.fid_range, self.ranges) != (None, None, None)

    def to_json(self) -> dict[str, Any]:
        """The settings as values that JSON can carry; paths become absolute, for a process with another folder."""
        values = dataclasses.asdict(self)
        return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunSettings:
        """What `to_json` made."""
        paths = {
            name: Path(values[name])
            for name in ("captions", "build_dir", "ranges", "metrics_dir", "baseline")
            if values[name] is not None
        }
        return cls(**values | paths)

    def check(self, source: dict[str, str] | None = None) -> None:
        """Check every value that has a fixed set or range.

        Args:
            source: For each field, where its value came from (`--model-opt`, an ini file), for the message.

        Raises:
            UsageError: a value is outside its set or range; the message names the nearest allowed one.
        """
        origin = source or {}
        for field, allowed in (
            ("model_opt", MODEL_OPTS),
            ("precision", PRECISIONS),
            ("graphs", GRAPHS),
            ("scenario", SCENARIOS),
            ("test_mode", TEST_MODES),
            ("responses", RESPONSES),
            ("gate", GATES),
            ("metrics", METRICS),
            ("save_images", SAVED_IMAGES),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise unknown_choice(field.replace("_", " "), value, allowed, source=origin.get(field, field))
        self._check_devices(origin)
        for field, what in (("samples", "a count of captions"), ("batch_size", "images per batch")):
            if (count := getattr(self, field)) is not None and count < 1:
                raise UsageError(
                    "a run needs at least one sample",
                    got=count,
                    expected=f"{what}, 1 or more",
                    source=origin.get(field, field),
                    fix="leave it out to take the default",
                )
        check_schedule(self.model_opt, self.shallow_steps, self.deep_steps, origin)
        if self.shard is not None:
            parse_shard(self.shard, source=origin.get("shard", "shard"))
        if self.resume is not None and self.responses == "images":
            raise UsageError(
                "a run that logs its images cannot be gone on with",
                got="responses images",
                expected="responses digests: the images that were drawn before are not kept",
                source=origin.get("resume", "resume"),
            )
        if not self.timeout_s > 0:
            raise UsageError(
                "a run needs time",
                got=self.timeout_s,
                expected="seconds, more than 0",
                source=origin.get("timeout_s", "timeout_s"),
            )
        if self.pipeline is not None and ":" not in self.pipeline:
            raise UsageError(
                "the pipeline under test is not an import path",
                got=repr(self.pipeline),
                expected="module:callable",
                source=origin.get("pipeline", "pipeline"),
            )
        self._check_paths(origin)
        if self.custom_gate:
            self._check_ranges(origin)

    def _check_devices(self, origin: dict[str, str]) -> None:
        one = r"auto|cpu|cuda(:\d+)?"
        for field, form, several in (
            ("device", rf"{one}|(cpu|cuda:\d+)(,(cpu|cuda:\d+))+", "; or several, as in cuda:0,cuda:1"),
            ("metrics_device", one, ""),
        ):
            value = getattr(self, field)
            gpus = [device for device in value.split(",") if device != "cpu"]
            if not re.fullmatch(form, value) or len(set(gpus)) < len(gpus):
                raise UsageError(
                    f"unknown {field.replace('_', ' ')} {value!r}",
                    got=repr(value),
                    expected="one of " + ", ".join(DEVICES) + several,
                    source=origin.get(field, field),
                )

    def _check_paths(self, origin: dict[str, str]) -> None:
        if self.metrics_dir is not None and not self.metrics_dir.is_dir():
            raise UsageError(
                "the folder of the metric networks is missing",
                got=self.metrics_dir,
                expected="a folder",
                source=origin.get("metrics_dir", "metrics_dir"),
            )
        if self.baseline is not None and not self.baseline.exists():
            raise UsageError(
                "the baseline is missing",
                got=self.baseline,
                expected="the log folder of an accuracy run",
                source=origin.get("baseline", "baseline"),
            )
        if self.captions is not None and not self.captions.is_file():
            raise UsageError(
                "the captions file is missing",
                got=self.captions,
                expected="a TSV with the columns id, image_id, caption, height, width, file_name, coco_url",
                source=origin.get("captions", "captions"),
            )

    def _check_ranges(self, origin: dict[str, str]) -> None:
        from sdxl_engine.accuracy.custom import parse_range

        given = [name for name in ("clip_range", "fid_range", "ranges") if getattr(self, name) is not None]
        asked = ["gate", *given] if self.gate != "auto" else given
        sources = ", ".join(origin.get(name, name) for name in asked)
        if self.gate not in ("auto", "custom"):
            raise UsageError(
                "ranges of your own do not go with another gate",
                got=f"gate {self.gate} and {', '.join(given)}",
                expected="the gate custom, or none named",
                source=sources,
            )
        if not given or (self.ranges is not None and len(given) > 1):
            raise UsageError(
                "the gate custom takes its ranges from one place",
                got=", ".join(given) or "none",
                expected="a CLIP range and an FID range, or one of the two, or a file of ranges",
                source=sources,
            )
        for name in ("clip_range", "fid_range"):
            if name in given:
                parse_range(getattr(self, name), source=origin.get(name, name))
        if self.ranges is not None and not self.ranges.is_file():
            raise UsageError(
                "the file of ranges is missing",
                got=self.ranges,
                expected="a JSON file",
                source=origin.get("ranges", "ranges"),
            )
