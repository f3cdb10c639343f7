"""Which TensorRT there is: `tensorrt`, or else `tensorrt_rtx`, which has the same Python interface."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from sdxl_engine.errors import UnavailableError

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
LEAST_MAJOR = 10
"""Of `tensorrt`: the first with strongly typed networks and without implicit batches."""

INSTALL = "pip install 'pytest-sdxl[tensorrt]'  (or, for TensorRT-RTX: pip install 'pytest-sdxl[tensorrt-rtx]')"


@dataclass(frozen=True)
class Library:
    """The module in use.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.
        version: Its own, all four numbers.
        module: Imported.
    """

    name: str
    version: str
    module: Any

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for GPUs that are not here; the plan is finished by the GPU that runs it."""
        return self.name == TENSORRT_RTX


def installed() -> tuple[str, ...]:
    """Names of the modules that are installed, the preferred one first; nothing is imported.

    A folder without an `__init__.py`, which is what a package of type stubs leaves, does not count.
    """
    found = []
    for name in (TENSORRT, TENSORRT_RTX):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append(name)
    return tuple(found)


def load() -> Library:
    """Import the preferred module that works.

    Raises:
        UnavailableError: there is none; the message says what was tried.
    """
    tried = []
    for name in installed():
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:  # the bindings are there and the libraries are not
            tried.append(f"{name}: {error}")
            continue
        version = str(module.__version__)
        if name == TENSORRT and int(version.partition(".")[0]) < LEAST_MAJOR:
            tried.append(f"{name} {version}")
            continue
        return Library(name, version, module)
    raise UnavailableError(
        "TensorRT is not installed",
        got="; ".join(tried) or f"no module {TENSORRT}, no module {TENSORRT_RTX}",
        expected=f"{TENSORRT} {LEAST_MAJOR} or newer, or {TENSORRT_RTX}",
        source="engine tensorrt",
        fix=INSTALL,
    )
