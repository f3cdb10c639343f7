"""The configuration of the machine that this runs on, and why it is that one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.systems.catalogue import read_catalogue
from sdxl_engine.systems.computed import computed
from sdxl_engine.systems.machine import detect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.systems.catalogue import Catalogue
    from sdxl_engine.systems.config import SystemConfig
    from sdxl_engine.systems.machine import Machine


@dataclass(frozen=True)
class Resolved:
    """A machine and its configuration.

    Args:
        config: From a file that is for the machine, or computed.
        machine: As detected.
        notes: What every command and a run's header should say beside the configuration's name: that it is computed,
            that the driver does not answer, what CUDA_VISIBLE_DEVICES hides. Empty for most machines.
    """

    config: SystemConfig
    machine: Machine
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line for a run's header."""
        return "; ".join([f"{self.config.name} ({self.machine.summary})", *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Both, and the notes, as values that JSON can carry."""
        return {"machine": self.machine.to_json(), "system": self.config.to_json(), "notes": list(self.notes)}


def system_config(
    build_dir: Path, systems_dir: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Resolved:
    """The configuration of this machine.

    A machine that no file is for gets a computed one, so there always is one.

    Args:
        build_dir: Whose folder `systems` has files of the user's.
        systems_dir: Another folder of the user's, in front of it; None takes SDXL_SYSTEMS_DIR's.
        environ: Where variables are read from, those of CUDA too.

    Raises:
        UsageError: the folder that is named is missing.
        AssetError: a file is wrong, or two are for this machine.
    """
    return resolve(read_catalogue(build_dir, systems_dir, environ), detect(environ))


def resolve(catalogue: Catalogue, machine: Machine) -> Resolved:
    """As `system_config`, for a machine that is given."""
    notes = [machine.gpu_error] if machine.gpu_error else []
    config = catalogue.match(machine)
    if config is None:
        config, how = computed(machine)
        near = [
            f"{each.name}: {each.match.mismatch(machine)}"
            for each in catalogue.systems
            if each.match.knows(machine.gpus)
        ]
        nearest = f" (nearest: {'; '.join(near)})" if near else ""
        notes.append(f"no file is for this machine{nearest}: {how}; `sdxl-engine systems add` writes one to correct")
    return Resolved(config, machine, (*notes, *machine.notes))
