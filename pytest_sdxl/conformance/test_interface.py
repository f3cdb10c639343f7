"""What an engine declares, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sdxl_engine.errors import EngineError
from sdxl_engine.models.spec import NETWORKS, NetworkSpec
from sdxl_engine.run_engine import engine_entry
from sdxl_engine.run_system import BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sdxl_engine.engines.base import Engine
    from sdxl_engine.settings import RunSettings

pytestmark = pytest.mark.conformance

FLOATS = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_interface_is_the_models(engine: Engine, network: str) -> None:
    """Names and shapes of inputs and outputs are the model's; ids are int32, the timestep float32, the rest floats."""
    declared, wanted = engine.networks[network], engine.spec.networks[network]

    def shapes(interface: NetworkSpec) -> object:
        sides = ({name: spec.at(1) for name, spec in side.items()} for side in (interface.inputs, interface.outputs))
        return (*sides, interface.rows(1))

    assert shapes(declared) == shapes(wanted), f"{network}: the engine declares another interface than the model's"
    for name, spec in (declared.inputs | declared.outputs).items():
        allowed = {"input_ids": ("int32",), "timestep": ("float32",)}.get(name, FLOATS)
        assert spec.dtype in allowed, f"{network}, {name}: {spec.dtype}, allowed is {' or '.join(allowed)}"


def test_it_is_what_was_asked_for(engine: Engine, settings: RunSettings, precision: str) -> None:
    """Name, precision and kind of device are those asked for, and a full batch of the pipeline is within its limit."""
    entry, declared = engine_entry(settings), engine.capabilities
    assert engine.name == entry.name, f"the engine calls itself {engine.name}, registered is {entry.name}"
    assert declared.precision == precision, f"it declares {declared.precision}, asked for was {precision}"
    kind = entry.device(settings.device).partition(":")[0]
    assert engine.device.type == kind, f"it is on {engine.device}, asked for was {kind}"
    most = declared.most_images
    assert most is None or most >= BATCH_SIZE, f"it takes {most} images at a time, asked for were {BATCH_SIZE}"


def _buffers(engine: Engine, network: str, images: int) -> dict[str, Tensor]:
    from pytest_sdxl.conformance.running import fresh

    interface = engine.networks[network]
    tensors = interface.inputs | interface.outputs
    return {name: fresh(engine, spec, interface.rows(images)) for name, spec in tensors.items()}


def _elsewhere(buffer: Tensor) -> Tensor:
    return buffer.to("cpu" if buffer.device.type == "cuda" else "meta")


def _strided(buffer: Tensor) -> Tensor:
    return buffer.transpose(-1, -2).contiguous().transpose(-1, -2)


SPOILT: dict[str, Callable[[Tensor], Tensor | None]] = {
    "missing": lambda _: None,
    "narrow": lambda buffer: buffer[:, :-1].contiguous(),
    "double": lambda buffer: buffer.double(),
    "strided": _strided,
    "elsewhere": _elsewhere,
}


@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize(
    ("network", "name"), [("unet", "sample"), ("shallow_unet", "up.1.sample"), ("vae", "latent"), ("vae", "images")]
)
def test_buffers_that_do_not_fit_are_refused(engine: Engine, network: str, name: str, fault: str) -> None:
    """A buffer that is missing, or has another shape, dtype, layout or device, is refused with an EngineError."""
    buffers = _buffers(engine, network, 1)
    spoilt = SPOILT[fault](buffers.pop(name))
    if spoilt is not None:
        buffers[name] = spoilt
    try:
        engine.bind(network, buffers)
    except EngineError:
        return
    pytest.fail(f"{network}: a buffer {name} that is {fault} was taken, expected an EngineError", pytrace=False)


def test_a_batch_above_its_limit_is_refused(engine: Engine) -> None:
    """A batch larger than the engine declares is refused with an EngineError; skipped where it declares no limit."""
    most = engine.capabilities.most_images
    if most is None:
        pytest.skip(f"the engine {engine.name} declares no limit")
    for network in NETWORKS:
        buffers = _buffers(engine, network, most + 1)
        try:
            engine.bind(network, buffers)
        except EngineError:
            continue
        pytest.fail(f"{network}: {most + 1} images were taken, declared are {most} at most", pytrace=False)
