"""Every configuration there is: the user's own in front of those that come with the package."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.errors import AssetError, UsageError, unknown_choice
from sdxl_engine.systems.reading import read_system

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.systems.config import SystemConfig
    from sdxl_engine.systems.machine import Machine

VARIABLE = "SDXL_SYSTEMS_DIR"
_HERE = Path(__file__).parent
_SHIPPED = (_HERE / "configs", _HERE.parents[1] / "configs" / "stable-diffusion-xl")
"""In an installed package, and in a checkout."""


def shipped_folder(places: tuple[Path, ...] = _SHIPPED) -> Path:
    """Where the configurations that come with the package are.

    Raises:
        AssetError: they are not there.
    """
    for folder in places:
        if any(folder.glob("*.toml")):
            return folder
    raise AssetError(
        "the machine configurations are missing from this installation", source=" or ".join(map(str, places))
    )


def own_folder(build_dir: Path, systems_dir: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where `add` writes: the folder that is named, else `systems` in the build folder."""
    named = _named(systems_dir, environ)
    return build_dir / "systems" if named is None else named[0]


def _named(systems_dir: Path | None, environ: Mapping[str, str]) -> tuple[Path, str] | None:
    if systems_dir is not None:
        return systems_dir, "--systems-dir"
    value = environ.get(VARIABLE)
    return (Path(value), VARIABLE) if value else None


@dataclass(frozen=True)
class Catalogue:
    """Configurations by folder, the first folder's before the next one's.

    Args:
        layers: Of each folder its files, by name.
    """

    layers: tuple[tuple[SystemConfig, ...], ...]

    @property
    def systems(self) -> list[SystemConfig]:
        """Each name once: that of the first folder which has it."""
        by_name: dict[str, SystemConfig] = {}
        for layer in self.layers:
            for config in layer:
                by_name.setdefault(config.name, config)
        return list(by_name.values())

    def named(self, name: str) -> SystemConfig:
        """The configuration of a name.

        Raises:
            UsageError: there is none; the message names the nearest.
        """
        by_name = {config.name: config for config in self.systems}
        if name not in by_name:
            raise unknown_choice("system", name, sorted(by_name), source="NAME")
        return by_name[name]

    def match(self, machine: Machine) -> SystemConfig | None:
        """The configuration for a machine, from the first folder that has one.

        Raises:
            AssetError: a folder has two; the message names both files.
        """
        for layer in self.layers:
            fitting = [config for config in layer if config.match.mismatch(machine) is None]
            if len(fitting) > 1:
                raise AssetError(
                    "more than one configuration is for this machine",
                    got=", ".join(str(config.path) for config in fitting),
                    expected=f"one file for {machine.summary}",
                    fix="remove one, or narrow its [match]",
                )
            if fitting:
                return fitting[0]
        return None


def read_catalogue(
    build_dir: Path, systems_dir: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Catalogue:
    """Read every file of the named folder, of `systems` in the build folder, and of the package.

    Args:
        build_dir: Whose folder `systems` is the user's, if it is there.
        systems_dir: A folder of the user's; None takes the one that SDXL_SYSTEMS_DIR names, if it names one.
        environ: Where that is read from.

    Raises:
        UsageError: the named folder is missing.
        AssetError: a file is wrong.
    """
    named = _named(systems_dir, environ)
    if named is not None and not named[0].is_dir():
        raise UsageError(
            "the folder of machine configurations is missing", got=named[0], expected="a folder", source=named[1]
        )
    folders = [folder for folder in (named and named[0], build_dir / "systems") if folder is not None]
    layers = [*dict.fromkeys(folder.absolute() for folder in folders), shipped_folder()]
    return Catalogue(tuple(tuple(map(read_system, sorted(folder.glob("*.toml")))) for folder in layers))
