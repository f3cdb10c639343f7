"""Which engines there are, what each needs, and which one `auto` takes."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sdxl_engine.errors import UnavailableError, UsageError, unknown_choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdxl_engine.engines.base import Engine, EngineRequest

AUTO = "auto"
ENTRY_POINTS = "sdxl_engine.engines"
"""Group of a third party's entry points: each names an `EngineEntry`."""


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """One registered engine. Says what is known without importing what the engine needs.

    Args:
        name: What users ask for.
        factory: `module:callable(EngineRequest) -> Engine`, imported only when it is used.
        needs: Modules that must be importable.
        install: The command that installs them.
        precisions: What it can run in; the first is its default.
        devices: Kinds of device it can run on, `cpu` or `cuda`; the first that is here is its default.
        least_capability: First compute capability of NVIDIA's that it runs on.
    """

    name: str
    factory: str
    needs: tuple[str, ...] = ()
    install: str = ""
    precisions: tuple[str, ...] = ("fp32",)
    devices: tuple[str, ...] = ("cpu",)
    least_capability: tuple[int, int] = (0, 0)

    @property
    def missing(self) -> tuple[str, ...]:
        """Needed modules that are not installed; nothing is imported to find out."""
        return tuple(module for module in self.needs if importlib.util.find_spec(module) is None)

    def precision(self, asked: str, *, source: str = "precision") -> str:
        """The precision to run in; `auto` is the default.

        Raises:
            UsageError: the engine does not have the one asked for.
        """
        if asked == AUTO:
            return self.precisions[0]
        if asked not in self.precisions:
            raise UsageError(
                f"the engine {self.name!r} does not run in {asked}",
                got=asked,
                expected=" or ".join(self.precisions),
                source=source,
            )
        return asked

    def device(self, asked: str, *, source: str = "device") -> str:
        """The device to run on; `auto` is the first of `devices` that is here. Imports torch to look for a GPU.

        Raises:
            UsageError: the engine does not run on the one asked for, or several are.
            UnavailableError: it is not here, or the engine needs a GPU and there is none.
        """
        if "," in asked:
            raise UsageError("this runs on one device", got=asked, expected="one of them", source=source)
        if asked == AUTO and self.devices[0] == "cpu":
            return "cpu"
        import torch

        gpus = torch.cuda.device_count()
        if asked == AUTO:
            if gpus and "cuda" in self.devices:
                self._check_capability(0, source)
                return "cuda"
            if "cpu" in self.devices:
                return "cpu"
        kind, _, number = asked.partition(":")
        wanted = "cuda" if asked == AUTO else kind
        if wanted not in self.devices:
            expected = " or ".join(self.devices)
            raise UsageError(
                f"the engine {self.name!r} does not run there", got=asked, expected=expected, source=source
            )
        if wanted == "cuda" and int(number or 0) >= gpus:
            raise UnavailableError(
                f"the engine {self.name!r} needs a GPU that is not here",
                got=f"{gpus} GPUs that torch can use",
                expected=asked if asked != AUTO else "one",
                source=source,
                fix="a machine with an NVIDIA GPU and a build of torch for CUDA",
            )
        if wanted == "cuda":
            self._check_capability(int(number or 0), source)
        return asked

    def _check_capability(self, gpu: int, source: str) -> None:
        """Refuse a GPU that is older than the engine's kernels."""
        if self.least_capability == (0, 0):
            return
        import torch

        found = torch.cuda.get_device_capability(gpu)
        if found < self.least_capability:
            raise UnavailableError(
                f"the engine {self.name!r} does not run on this GPU",
                got=f"{torch.cuda.get_device_name(gpu)}, compute capability {found[0]}.{found[1]}",
                expected="compute capability {}.{} or newer".format(*self.least_capability),
                source=source,
                fix="another engine: --sdxl-engine=torch, or sdxl-engine --engine torch",
            )


_TORCH = ("torch", "diffusers", "transformers")


def _own(name: str, module: str, *needs: str, **more: Any) -> EngineEntry:
    factory, install = f"sdxl_engine.engines.{module}:create", f"pip install 'pytest-sdxl[{name}]'"
    return EngineEntry(name=name, factory=factory, needs=(*_TORCH, *needs), install=install, **more)


ENGINES = {
    entry.name: entry
    for entry in (
        # In the order in which `auto` tries them.
        _own(
            "onnxruntime",
            "onnxruntime_engine",
            *("onnx", "onnxscript", "onnxruntime"),
            precisions=("fp32", "int8", "fp8"),
        ),
        # Its kernels use Hopper's tensor memory accelerator.
        _own(
            "cuda",
            "cuda.built",
            "triton",
            precisions=("fp16", "fp8"),
            devices=("cuda",),
            least_capability=(9, 0),
        ),
        _own("torch", "torch_engine", precisions=("fp32", "fp16", "bf16"), devices=("cuda", "cpu")),
    )
}
"""The project's own."""


_TENSORRT = "sdxl_engine.engines.tensorrt.entry:ENTRY"
"""Has an entry of its own kind, since either of two modules will do."""


def registered() -> dict[str, Callable[[], EngineEntry]]:
    """Every engine's name and what gives its entry: the project's own, then installed third parties' by entry point.

    The project's own come in the order in which `auto` tries them.
    """
    found: dict[str, Callable[[], EngineEntry]] = {"tensorrt": partial(_imported, _TENSORRT, "engine tensorrt")}
    found |= {name: partial(ENGINES.__getitem__, name) for name in ENGINES}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, partial(_from_entry_point, point))
    return found


def _from_entry_point(point: importlib.metadata.EntryPoint) -> EngineEntry:
    return _imported(point.value, f"entry point {point.name} of {point.dist.name if point.dist else 'a package'}")


def resolve_engine(name: str, *, source: str = "engine") -> EngineEntry:
    """The engine asked for, or for `auto` the first that is installed and can run here. Imports no heavy library.

    Args:
        name: A registered name, `auto`, or `module:attribute` of an `EngineEntry` that is not registered.
        source: Where the choice came from, for the message.

    Raises:
        UsageError: there is no engine of that name, or what is named is not an engine's entry.
        UnavailableError: what it needs is not installed.
    """
    if name == AUTO:
        return _first_that_runs()
    if ":" in name:
        entry = _imported(name, source)
    else:
        known = registered()
        if name not in known:
            raise unknown_choice("engine", name, [AUTO, *known], source=source)
        entry = known[name]()
    if entry.missing:
        raise UnavailableError(
            f"the engine {name!r} is not installed",
            got="no module " + ", ".join(entry.missing),
            expected=", ".join(entry.needs),
            source=source,
            fix=entry.install,
        )
    return entry


def _first_that_runs() -> EngineEntry:
    """With a GPU, an engine for GPUs; else one for the CPU. TensorRT-RTX is for building plans, so it is passed by."""
    from sdxl_engine.engines.tensorrt import library
    from sdxl_engine.systems.machine import detect

    entries = [entry for entry in ENGINES.values() if not entry.missing]
    gpus = detect(os.environ).gpus
    if gpus:
        tensorrt = _imported(_TENSORRT, "engine tensorrt")
        whole = library.TENSORRT in library.installed() and not tensorrt.missing
        capability = min(gpu.compute_capability for gpu in gpus)
        able = [entry for entry in entries if "cuda" in entry.devices and entry.least_capability <= capability]
        for_gpus = [*([tensorrt] if whole else []), *able]
        entries = for_gpus or entries
    else:
        entries = [entry for entry in entries if "cpu" in entry.devices]
    return entries[0] if entries else resolve_engine("torch")


def create_engine(entry: EngineEntry, request: EngineRequest) -> Engine:
    """Load, and where need be build, an engine.

    Raises:
        UsageError: its factory cannot be imported.
        SdxlError: whatever the engine raises.
    """
    return cast("Engine", _attribute(entry.factory, f"the factory of the engine {entry.name}")(request))


def _imported(path: str, source: str) -> EngineEntry:
    found = _attribute(path, source)
    if not isinstance(found, EngineEntry):
        raise UsageError(
            "this is not an engine's entry",
            got=repr(found),
            expected="a sdxl_engine.engines.EngineEntry",
            source=f"{path}, {source}",
        )
    return found


def _attribute(path: str, source: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "this engine cannot be imported",
            got=error,
            expected="module:attribute",
            source=f"{path}, {source}",
            fix="install the module, or name its folder in PYTHONPATH",
        ) from error
