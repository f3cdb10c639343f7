"""A walk through the pipeline: what each network read and wrote, at every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sdxl_engine.engines.base import Buffers, Engine, EngineMemory

LOOP = ("unet", "shallow_unet")


@dataclass(frozen=True)
class Call:
    """One network, run once.

    Args:
        network: One of `spec.NETWORKS`.
        step: Denoising step, from 0; None outside of the loop.
        inputs: By name, in the CPU's memory; integers as they are, all else float32.
        outputs: Likewise.
    """

    network: str
    step: int | None
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Walker:
    """An engine that runs another and keeps every call.

    Args:
        engine: Runs the networks.
        led_by: Calls of another walk over the same prompts. Each network then reads what it read there, so that its
            outputs hold its own error alone and none that was handed to it.
    """

    def __init__(self, engine: Engine, led_by: Sequence[Call] | None = None) -> None:
        self._engine, self._led_by = engine, led_by
        self.name, self.spec, self.networks, self.device = engine.name, engine.spec, engine.networks, engine.device
        # A CUDA graph would replay the networks without coming by here.
        self.capabilities = replace(engine.capabilities, capturable=False)
        self.calls: list[Call] = []

    def bind(self, network: str, buffers: Buffers) -> Callable[[], None]:
        """See `Engine.bind`."""
        run, interface = self._engine.bind(network, buffers), self.networks[network]

        def walk() -> None:
            if self._led_by is not None:
                self._lead(network, buffers, self._led_by)
            inputs = {name: _kept(buffers[name]) for name in interface.inputs}
            run()
            step = sum(call.network in LOOP for call in self.calls) if network in LOOP else None
            self.calls.append(Call(network, step, inputs, {name: _kept(buffers[name]) for name in interface.outputs}))

        return walk

    def _lead(self, network: str, buffers: Buffers, led_by: Sequence[Call]) -> None:
        position = len(self.calls)
        expected = led_by[position].network if position < len(led_by) else "no more"
        if network != expected:
            raise EngineError(
                "the two engines run other networks, so they cannot be compared step by step",
                got=f"{network} as number {position + 1}",
                expected=expected,
            )
        for name, value in led_by[position].inputs.items():
            buffers[name].copy_(value)

    def memory(self) -> EngineMemory:
        """See `Engine.memory`."""
        return self._engine.memory()

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


def _kept(buffer: Tensor) -> Tensor:
    """A copy that the next call does not overwrite."""
    return buffer.detach().to("cpu", torch.float32 if buffer.is_floating_point() else None, copy=True)
