"""What every engine is: five networks that run on buffers the caller owns. docs/engines.md has a complete example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.export.calibration_set import CalibrationSet
    from sdxl_engine.export.recipes import Recipe
    from sdxl_engine.models.spec import ModelSpec, NetworkSpec

Buffers = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What an engine is made for. A factory builds what is not built yet and loads it.

    Args:
        checkpoint: A diffusers-layout folder.
        spec: Its sizes.
        cache: Where built files go, `build/engines`; `sdxl_engine.engines.cache.built_once` keeps stale ones out.
        model_opt: Which networks: the deep UNet of `DeepCachePruned` is another one.
        precision: One of the precisions that the engine's entry names.
        batch_size: Most images at a time; the UNets get twice as many rows.
        device: `cpu`, `cuda` or `cuda:<number>`.
        calibration: Gives what ranges are measured on for a recipe; raises where there is nothing. None where the
            maker knows of nothing.
    """

    checkpoint: Path
    spec: ModelSpec
    cache: Path
    model_opt: str = "NoOpt"
    precision: str = "fp32"
    batch_size: int = 8
    device: str = "cpu"
    calibration: Callable[[Recipe], CalibrationSet] | None = None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a loaded engine declares of itself; the conformance suite holds it to it.

    Args:
        precision: Of the weights and of the products, one of `sdxl_engine.settings.PRECISIONS`.
        most_images: Largest batch, in images; None if there is no limit but memory.
        capturable: Whether the bound callables only enqueue work on torch's current CUDA stream, so that a CUDA graph
            can hold them.
    """

    precision: str
    most_images: int | None = None
    capturable: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """What an engine holds for itself, bytes; the caller's buffers are not counted.

    Args:
        host: In the CPU's memory.
        device: In the GPU's memory.
    """

    host: int
    device: int = 0


class Engine(Protocol):
    """Runs the five networks of one model.

    Attributes:
        name: As registered.
        spec: The model's sizes.
        networks: The interface of each of `spec.NETWORKS`: names and shapes are those of `spec.networks`, the dtypes
            of floating-point tensors are the engine's own choice.
        device: Where buffers must lie.
        capabilities: What it declares.
    """

    name: str
    spec: ModelSpec
    networks: dict[str, NetworkSpec]
    device: torch.device
    capabilities: Capabilities

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """Prepare one network for one set of buffers.

        Args:
            network: One of `spec.NETWORKS`.
            buffers: Every input and output of the network by name, contiguous, on `device`, with the shapes and dtypes
                of `networks[network]` for one batch size. Buffers may be shared between networks: that is how cached
                features get from the deep UNet to the shallow one without a copy. Another binding of the same network,
                for another batch size, may use the same memory.

        Returns:
            A callable that reads the inputs and writes every element of the outputs. Results depend on the inputs
            alone: not on earlier calls, on other rows of the batch, or on what the outputs held before.

        Raises:
            EngineError: a buffer is missing or has the wrong shape, dtype or device.
        """
        ...

    def memory(self) -> EngineMemory:
        """What the engine holds now: weights, workspaces, plans; nothing once it is closed."""
        ...

    def close(self) -> None:
        """Give all memory back; a second call does nothing. Bound callables must not be called after it."""
        ...


class Steps(Protocol):
    """The denoising steps of a batch on bound buffers, for an engine that shares work between them.

    Each call only enqueues work, as a bound callable does. `begin` comes first, once the text's buffers are filled;
    then the steps in their order, a deep one before the first shallow one; then `end`.
    """

    def begin(self) -> None:
        """Compute what depends on the prompts and on the timesteps alone."""
        ...

    def deep(self, step: int) -> None:
        """Read `sample` and write `latent`, as the network `unet` does at the timestep of `step`, from 0."""
        ...

    def shallow(self, step: int) -> None:
        """The same for `shallow_unet`, on what the last deep step left; the cached features' buffers are not used."""
        ...

    def end(self) -> None:
        """Let go of what the batch left behind."""
        ...


@runtime_checkable
class StepEngine(Protocol):
    """What an engine may offer beside `Engine`: the pipeline then draws whole batches by its steps."""

    def bind_steps(self, buffers: Buffers, timesteps: Sequence[float]) -> Steps:
        """Prepare the steps for one set of buffers.

        Args:
            buffers: Every input and output of both UNets by name, as for `Engine.bind`.
            timesteps: Of all steps.
        """
        ...


def with_floats(networks: Mapping[str, NetworkSpec], dtype: str) -> dict[str, NetworkSpec]:
    """The same interfaces with floating-point tensors of another dtype (numpy name); the timestep stays float32.

    A timestep of 981 in float16 is off by a half at most, which is another noise level.
    """

    def converted(interface: NetworkSpec) -> NetworkSpec:
        inputs, outputs = (
            {
                name: replace(spec, dtype=dtype) if spec.dtype == "float32" and name != "timestep" else spec
                for name, spec in tensors.items()
            }
            for tensors in (interface.inputs, interface.outputs)
        )
        return replace(interface, inputs=inputs, outputs=outputs)

    return {name: converted(interface) for name, interface in networks.items()}


def check_buffers(engine: Engine, network: str, buffers: Buffers) -> None:
    """Check names, shapes, dtypes, contiguity and device of the buffers of one network.

    Raises:
        EngineError: naming the first buffer that does not fit, or a batch above what the engine declares.
    """
    interface = engine.networks[network]
    tensors = interface.inputs | interface.outputs
    missing = sorted(tensors.keys() - buffers.keys())
    if missing:
        raise EngineError(f"{network}: buffers are missing", got=sorted(buffers), expected=f"also {missing}")
    batched = next(name for name, spec in tensors.items() if spec.batched)
    rows = buffers[batched].shape[0]
    for name, spec in tensors.items():
        buffer, dtype = buffers[name], getattr(torch, spec.dtype)
        if (
            tuple(buffer.shape) != spec.at(rows)
            or buffer.dtype != dtype
            or buffer.device != engine.device
            or not buffer.is_contiguous()
        ):
            kind = "contiguous" if buffer.is_contiguous() else "strided"
            raise EngineError(
                f"{network}: buffer {name!r} does not fit",
                got=f"{tuple(buffer.shape)} {buffer.dtype} {kind} on {buffer.device}",
                expected=f"{spec.at(rows)} {dtype} contiguous on {engine.device}",
            )
    most = engine.capabilities.most_images
    if most is not None and rows > interface.rows(most):
        raise EngineError(
            f"{network}: the batch is larger than the engine {engine.name} was made for",
            got=f"{rows} rows",
            expected=f"at most {interface.rows(most)}, for {most} images",
        )
