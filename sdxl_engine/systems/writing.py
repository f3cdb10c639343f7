"""A machine's configuration as a TOML file."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError
from sdxl_engine.files import written_whole
from sdxl_engine.systems.config import SCHEMA, SystemConfig
from sdxl_engine.systems.reading import read_system

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write_system(config: SystemConfig, path: Path, comments: Iterable[str] = ()) -> SystemConfig:
    """Write a configuration to a new file, whole or not at all.

    Args:
        config: What to write; its name is not: that is the file's.
        path: `NAME.toml`.
        comments: Lines for the top of the file.

    Returns:
        The configuration as read back from the file.

    Raises:
        AssetError: the file is there already.
    """
    if path.exists():
        raise AssetError("there is a configuration of this name", source=path, fix="name another, or remove that file")
    with written_whole(path) as aside:
        aside.write_text(to_toml(config, comments), encoding="utf-8")
        read_system(aside)
    return read_system(path)


def to_toml(config: SystemConfig, comments: Iterable[str] = ()) -> str:
    """The text of a file; keys with their default value are left out, but for those of `[defaults]`."""
    lines = [f"# {comment}" for comment in comments]
    lines += [f"schema = {SCHEMA}", f"description = {_value(config.description)}"]
    match = dataclasses.asdict(config.match)
    lines += ["", "[match]", *_pairs({name: value for name, value in match.items() if value})]
    defaults = config.defaults.to_json()
    lines += ["", "[defaults]", *_pairs(defaults)]
    for (scenario, model_opt), run in config.runs.items():
        own = {name: value for name, value in run.to_json().items() if value != defaults[name]}
        lines += ["", f"[{scenario}.{model_opt}]", *_pairs(own)]
    return "\n".join(lines) + "\n"


def _pairs(values: dict[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    # JSON's texts, numbers, truth values and lists are TOML's too.
    return json.dumps(value, ensure_ascii=False)
