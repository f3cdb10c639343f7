"""A machine's configuration from its TOML file; whatever is wrong with one is named by file, table and key."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError, did_you_mean
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.settings import MODEL_OPTS, SCENARIOS
from sdxl_engine.systems.config import SCHEMA, Match, RunConfig, SystemConfig
from sdxl_engine.systems.keys import WrongValueError, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read_system(path: Path) -> SystemConfig:
    """Read and check one file.

    Raises:
        AssetError: the file is missing, is not TOML, or has a key, table or value that cannot be; the message names it.
    """
    return _Reader(path).system()


class _Reader:
    """Reads one file; knows it by name for the messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AssetError("the configuration is missing", expected="a TOML file", source=path) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise AssetError("the configuration is not valid TOML", got=error, source=path) from None

    def system(self) -> SystemConfig:
        schema = self.tables.get("schema")
        if schema != SCHEMA or isinstance(schema, bool):
            raise self.error(
                "", "schema", "this version reads another schema", schema, f"schema = {SCHEMA}, a whole number"
            )
        self.known("", self.tables, ("schema", "description", "match", "defaults", *SCENARIOS))
        top = {name: value for name, value in self.tables.items() if name == "description"}
        description = self.values("", top, keys_of(SystemConfig))["description"]
        match = self.match()
        defaults = self.defaults(match)
        runs = {
            (scenario, model_opt): self.run(f"{scenario}.{model_opt}", table, defaults, match)
            for scenario in SCENARIOS
            for model_opt, table in self.scenario(scenario).items()
        }
        return SystemConfig(
            name=self.path.stem, description=description, match=match, defaults=defaults, runs=runs, path=self.path
        )

    def match(self) -> Match:
        match = Match(**self.values("match", self.table("match"), keys_of(Match)))
        if match.cpu == bool(match.gpu_names):
            raise self.error(
                "match",
                "cpu" if match.cpu else "gpu_names",
                "a file is for machines with GPUs or for machines without",
                "both" if match.cpu else "neither",
                "cpu = true, or gpu_names and gpu_count",
            )
        stray = [name for name in ("gpu_count", "gpu_memory_gib") if match.cpu and getattr(match, name)]
        stray += ["cpu_names"] if match.cpu_names and not match.cpu else []
        if stray:
            raise self.error(
                "match", stray[0], "this key does not go with the others", stray[0], f"cpu = {str(match.cpu).lower()}"
            )
        if match.gpu_names and not match.gpu_count:
            raise self.lacks("match", "gpu_count", "a count of GPUs")
        return match

    def defaults(self, match: Match) -> RunConfig:
        keys = {name: each for name, each in keys_of(RunConfig).items() if not each.per_run}
        values = self.values("defaults", self.table("defaults"), keys)
        for network in NETWORKS:
            if network not in values["gpu_batch_size"]:
                raise self.lacks("defaults", f"gpu_batch_size.{network}", "images per batch")
        run = RunConfig(**{"devices": match.gpu_count or 1} | values)
        self.check("defaults", run, match)
        return run

    def scenario(self, name: str) -> dict[str, Any]:
        table = self.tables.get(name, {})
        if not isinstance(table, dict):
            raise self.error("", name, "a scenario is a table", table, f"[{name}.{MODEL_OPTS[0]}]")
        self.known(name, table, MODEL_OPTS)
        return table

    def run(self, name: str, table: object, defaults: RunConfig, match: Match) -> RunConfig:
        if not isinstance(table, dict):
            raise self.error("", name, "a model-opt is a table", table, f"[{name}]")
        values = self.values(name, table, keys_of(RunConfig), partial=True)
        if "gpu_batch_size" in values:
            values["gpu_batch_size"] = {**defaults.gpu_batch_size, **values["gpu_batch_size"]}
        run = dataclasses.replace(defaults, **values)
        self.check(name, run, match)
        return run

    def check(self, table: str, run: RunConfig, match: Match) -> None:
        """What keys ask of each other."""
        deep, shallow = run.gpu_batch_size["unet"], run.gpu_batch_size["shallow_unet"]
        if deep != shallow:
            raise self.error(
                table, "gpu_batch_size.shallow_unet", "both UNets share buffers", shallow, f"{deep}, as unet has"
            )
        if run.devices > (match.gpu_count or 1):
            raise self.error(
                table,
                "devices",
                "a run has more devices than the machine",
                run.devices,
                f"at most {match.gpu_count or 1}",
            )
        if (run.offline_expected_qps is None) != (run.source is None):
            lacking = "source" if run.source is None else "offline_expected_qps"
            raise self.lacks(table, lacking, "offline_expected_qps and the source it comes from, or neither")

    def table(self, name: str) -> dict[str, Any]:
        table = self.tables.get(name)
        if not isinstance(table, dict):
            raise self.lacks("", name, f"a table [{name}]")
        return table

    def values(
        self, table: str, found: dict[str, Any], keys: dict[str, Any], *, partial: bool = False
    ) -> dict[str, Any]:
        """The values of a table, read; `partial` where every key may be left out."""
        self.known(table, found, keys)
        for name, each in keys.items():
            if name not in found and each.left_out is None and not partial:
                raise self.lacks(table, name, each.kind.expected)
        read = {}
        for name, value in found.items():
            try:
                read[name] = keys[name].kind.read(value)
            except WrongValueError as wrong:
                which = name if wrong.below is None else f"{name}.{wrong.below}"
                raise self.error(table, which, "wrong value", wrong.got, wrong.expected, wrong.fix) from None
        return read

    def known(self, table: str, found: Iterable[str], keys: Iterable[str]) -> None:
        allowed = list(keys)
        for name in found:
            if name not in allowed:
                expected = "one of " + ", ".join(allowed)
                raise self.error(table, name, "there is no such key", name, expected, did_you_mean(name, allowed))

    def lacks(self, table: str, name: str, expected: str) -> AssetError:
        return self.error(table, name, "this key is missing", None, expected)

    def error(self, table: str, name: str, what: str, got: object, expected: str, fix: str | None = None) -> AssetError:
        where = f"[{table}] {name}" if table else name
        return AssetError(
            f"{self.path.name}: {where}: {what}",
            got=None if got is None else repr(got),
            expected=expected,
            source=self.path,
            fix=fix,
        )
