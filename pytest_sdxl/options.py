"""The plugin's options: one table for the command line, the environment and the ini file, resolved once.

A value on the command line wins over one in the environment, that over one in the ini file, that over the
default. An empty value in the environment or the ini file counts as not set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from sdxl_engine.errors import UsageError
from sdxl_engine.settings import (
    DEVICES,
    GATES,
    GRAPHS,
    METRICS,
    MODEL_OPTS,
    PRECISIONS,
    RESPONSES,
    SAVED_IMAGES,
    SCENARIOS,
    TEST_MODES,
    RunSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


# Named tuples, not dataclasses: every pytest session makes these classes, and a dataclass takes 1 ms.
class Option(NamedTuple):
    """One option: `field` gives its name everywhere (`model_opt`: SDXL_MODEL_OPT, ini `sdxl_model_opt`)."""

    flag: str
    field: str
    metavar: str
    help: str
    many: bool = False
    ini_type: Literal["string", "int"] = "string"

    @property
    def ini(self) -> str:
        """Its name in the ini file, and where argparse keeps it."""
        return f"sdxl_{self.field}"

    @property
    def env(self) -> str:
        """Its environment variable."""
        return self.ini.upper()


def _names(values: tuple[str, ...]) -> str:
    return ", ".join(values)


OPTIONS = (
    Option(
        "--model-opt",
        "model_opt",
        "NAME",
        f"Variants to measure ({_names(MODEL_OPTS)}); may be repeated or take commas, default DeepCache",
        many=True,
    ),
    Option("--sdxl-model", "model", "MODEL", "shapes, random, or a checkpoint's folder, default auto"),
    Option("--sdxl-engine", "engine", "NAME", "Engine that runs the networks, default auto"),
    Option(
        "--sdxl-precision", "precision", "NAME", f"Of the networks ({_names(PRECISIONS)}), default the engine's own"
    ),
    Option(
        "--sdxl-device",
        "device",
        "DEVICE",
        "Of the engine (cpu, cuda, cuda:N, several with commas), default auto: a GPU if it can use one",
    ),
    Option(
        "--sdxl-graphs",
        "graphs",
        "WHEN",
        f"CUDA graphs ({_names(GRAPHS)}), default auto: if the engine can be captured",
    ),
    Option(
        "--sdxl-shallow-steps",
        "shallow_steps",
        "N",
        "Shallow steps after each deep one, default the variant's own",
        ini_type="int",
    ),
    Option("--sdxl-deep-steps", "deep_steps", "LIST", "The deep steps themselves (0-3,6,9), in their place"),
    Option("--sdxl-scenario", "scenario", "NAME", f"LoadGen scenario ({_names(SCENARIOS)})"),
    Option("--sdxl-test-mode", "test_mode", "NAME", f"LoadGen tests to run ({_names(TEST_MODES)})"),
    Option(
        "--sdxl-batch-size",
        "batch_size",
        "N",
        "Images per batch, default the machine's configuration's",
        ini_type="int",
    ),
    Option(
        "--sdxl-samples",
        "samples",
        "N",
        "Use the first N captions, default the model's own count",
        ini_type="int",
    ),
    Option("--sdxl-pipeline", "pipeline", "MODULE:CALLABLE", "Pipeline under test, default the project's own"),
    Option("--sdxl-captions", "captions", "FILE", "Captions (TSV) in place of the model's own"),
    Option(
        "--sdxl-timeout-s",
        "timeout_s",
        "SECONDS",
        "Kill a run after this long without an answered batch, default 600",
    ),
    Option("--sdxl-metrics", "metrics", "NAME", f"Metric variant ({_names(METRICS)}), default auto: the model's own"),
    Option("--sdxl-metrics-dir", "metrics_dir", "DIR", "Metric networks in place of the model's own"),
    Option(
        "--sdxl-metrics-device",
        "metrics_device",
        "DEVICE",
        f"Where images are scored ({_names(DEVICES)}), default auto: a GPU where there is one",
    ),
    Option("--sdxl-shard", "shard", "i/n", "Accuracy of only this machine's share of the captions"),
    Option("--sdxl-resume", "resume", "last|DIR", "Go on with an accuracy run that was killed"),
    Option(
        "--sdxl-responses",
        "responses",
        "KIND",
        f"What LoadGen logs for each image ({_names(RESPONSES)}), default {RESPONSES[0]}",
    ),
    Option(
        "--sdxl-save-images",
        "save_images",
        "WHICH",
        f"Images of an accuracy run to keep in its log folder ({_names(SAVED_IMAGES)}), default {SAVED_IMAGES[0]}",
    ),
    Option("--sdxl-baseline", "baseline", "DIR", "Accuracy run to compare with where a gate fails: its log folder"),
    Option(
        "--sdxl-gate",
        "gate",
        "NAME",
        f"What judges the scores ({_names(GATES)}), default auto: by model, variant and the ranges given",
    ),
    Option("--sdxl-clip-range", "clip_range", "LO,HI", "Gate custom: valid CLIP scores, an end may be left out"),
    Option("--sdxl-fid-range", "fid_range", "LO,HI", "Gate custom: valid FIDs, an end may be left out"),
    Option("--sdxl-ranges", "ranges", "FILE", "Gate custom: ranges from a file (JSON)"),
    Option("--sdxl-json", "json", "FILE", "Write every result to FILE"),
)
DEFAULT_MODEL_OPTS = ("DeepCache",)
"""The variant that the project is about; NoOpt and DeepCachePruned are asked for by name."""

_MODEL_WORDS = ("auto", "shapes", "random")


class Given(NamedTuple):
    """A value that the user set: as written, where, and the folder that a relative path in it starts from."""

    raw: Any
    source: str
    base: Path
    on_command_line: bool = False


class Resolved(NamedTuple):
    """The options of this session.

    Args:
        runs: One configuration per `--model-opt`, in the order given.
        json: Where `--sdxl-json` asks for the results.
        sources: For each field that the user set, where.
        on_command_line: Whether any field of `runs` was set on the command line.
    """

    runs: tuple[RunSettings, ...]
    json: Path | None
    sources: Mapping[str, str]
    on_command_line: bool


RESOLVED = pytest.StashKey[Resolved]()


def add_options(parser: pytest.Parser) -> None:
    """Register the table with pytest, as command line options and as ini values."""
    group = parser.getgroup("sdxl", "MLPerf Stable Diffusion XL benchmark")
    for option in OPTIONS:
        group.addoption(
            option.flag,
            dest=option.ini,
            action="append" if option.many else "store",
            default=None,
            metavar=option.metavar,
            help=f"{option.help} (env {option.env}, ini {option.ini})",
        )
        parser.addini(option.ini, f"Default of {option.flag}", type=option.ini_type, default=None)


def _given(config: pytest.Config, option: Option) -> Given | None:
    here = config.invocation_params.dir
    value = config.getoption(option.ini)
    if value is not None:
        if value == "":
            raise UsageError("an option has no value", got="''", expected=option.metavar, source=option.flag)
        return Given(value, option.flag, here, on_command_line=True)
    if text := os.environ.get(option.env):
        return Given(text, f"environment variable {option.env}", here)
    try:
        value = config.getini(option.ini)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error), source=f"ini value {option.ini}") from None
    if value in (None, ""):
        return None
    return Given(value, f"{option.ini} in {config.inipath or '--override-ini'}", config.rootpath)


def _variants(given: Given) -> tuple[str, ...]:
    texts = given.raw if isinstance(given.raw, list) else [given.raw]
    names = [name.strip() for text in texts for name in text.split(",")]
    variants = tuple(dict.fromkeys(name for name in names if name))
    if not variants:
        raise UsageError(
            "no variant is named",
            got=repr(given.raw),
            expected="one of " + _names(MODEL_OPTS),
            source=given.source,
        )
    return variants


def _count(given: Given) -> int:
    try:
        return int(given.raw)
    except ValueError:
        raise UsageError(
            "this is not a whole number",
            got=repr(given.raw),
            expected="a count",
            source=given.source,
        ) from None


def _seconds(given: Given) -> float:
    try:
        return float(given.raw)
    except ValueError:
        raise UsageError(
            "the time limit is not a number", got=repr(given.raw), expected="seconds, more than 0", source=given.source
        ) from None


def _resume(given: Given) -> str:
    return given.raw if given.raw == "last" else str(_path(given))


def _path(given: Given) -> Path:
    return given.base / Path(given.raw).expanduser()


def _model(given: Given) -> str:
    """A name as it is; what looks like or is a folder, as an absolute path."""
    raw: str = given.raw
    is_path = os.sep in raw or (raw not in _MODEL_WORDS and _path(given).is_dir())
    return str(_path(given)) if is_path else raw


def _engines(config: pytest.Config) -> dict[str, str]:
    """Import paths by name, of the engines that hooks told of."""
    told: list[dict[str, str]] = config.pluginmanager.hook.pytest_sdxl_engines(config=config)
    return {name: path for engines in reversed(told) for name, path in engines.items()}


def resolve(config: pytest.Config) -> Resolved:
    """Take each option from where it was set.

    Raises:
        UsageError: a value cannot be read as what its option is (a count, a list of variants).
    """
    given = {option.field: value for option in OPTIONS if (value := _given(config, option)) is not None}
    parsers = {
        "samples": _count,
        "batch_size": _count,
        "shallow_steps": _count,
        "timeout_s": _seconds,
        "captions": _path,
        "ranges": _path,
        "metrics_dir": _path,
        "model": _model,
        "resume": _resume,
        "baseline": _path,
    }
    fields: dict[str, Any] = {
        field: parsers.get(field, lambda value: value.raw)(value)
        for field, value in given.items()
        if field not in ("model_opt", "json")
    }
    if (named := fields.get("engine")) is not None:
        fields["engine"] = _engines(config).get(named, named)
    variants = _variants(given["model_opt"]) if "model_opt" in given else DEFAULT_MODEL_OPTS
    return Resolved(
        runs=tuple(
            RunSettings(model_opt=variant, build_dir=config.rootpath / "build", **fields) for variant in variants
        ),
        json=_path(given["json"]) if "json" in given else None,
        sources={field: value.source for field, value in given.items()},
        on_command_line=any(value.on_command_line for field, value in given.items() if field != "json"),
    )
