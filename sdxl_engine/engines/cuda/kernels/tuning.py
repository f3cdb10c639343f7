"""Launch configurations: found once by timing a short list, kept by shape.

A wrapper looks its configuration up (`Configurations.get`), which neither times nor synchronises, so it works while a
CUDA graph is captured. `Configurations.tune` does the timing, ahead of that, on the tensors it is given.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sdxl_engine.engines.cuda.timing import fastest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Configuration = dict[str, int]


class Configurations:
    """The launch configurations of one kernel.

    Attributes:
        chosen: What was tuned, by key; JSON.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, Configuration] = {}

    def get(self, key: str, default: Configuration) -> Configuration:
        """What was tuned for `key`; `default` where nothing was."""
        return self.chosen.get(key, default)

    def tune(
        self, key: str, candidates: Sequence[Configuration], launch: Callable[[Configuration], object]
    ) -> list[float]:
        """Time every candidate, keep for `key` the one to use.

        Args:
            key: What `get` will be asked for.
            candidates: To be tried; the first is kept unless another is clearly faster.
            launch: Starts the kernel once with one of them.

        Returns:
            Their times, ms, in their order; infinity of those that do not run.

        Raises:
            RuntimeError: See `fastest`.
        """
        best, times = fastest([partial(launch, candidate) for candidate in candidates])
        self.chosen[key] = dict(candidates[best])
        return times
