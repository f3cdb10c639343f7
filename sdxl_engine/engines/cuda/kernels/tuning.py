"""Launch configurations: found once by timing a short list, kept by kind of GPU and shape.

A wrapper looks its configuration up (`Configurations.chosen`), which neither times nor synchronises, so it works while
a CUDA graph is captured. `Configurations.tune` does the timing, ahead of that, on the tensors it is given.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sdxl_engine.engines.cuda.kernels.checks import kind_of
from sdxl_engine.engines.cuda.timing import fastest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

Configuration = dict[str, int]


class Configurations:
    """The launch configurations of one kernel."""

    def __init__(self) -> None:
        self._chosen: dict[str, dict[str, Configuration]] = {}

    def chosen(self, device: torch.device) -> dict[str, Configuration]:
        """What was tuned on GPUs of this device's kind, by key, or is added to it; JSON."""
        return self._chosen.setdefault(kind_of(device), {})

    def tune(
        self,
        device: torch.device,
        key: str,
        candidates: Sequence[Configuration],
        launch: Callable[[Configuration], object],
    ) -> list[float]:
        """Time every candidate on a device, keep for `key` the one to use.

        Args:
            device: On which `launch` starts the kernel.
            key: Of the shape.
            candidates: To be tried; the first is kept unless another is clearly faster.
            launch: Starts the kernel once with one of them.

        Returns:
            Their times, ms, in their order; infinity of those that do not run.

        Raises:
            RuntimeError: See `fastest`.
        """
        best, times = fastest([partial(launch, candidate) for candidate in candidates])
        self.chosen(device)[key] = dict(candidates[best])
        return times
