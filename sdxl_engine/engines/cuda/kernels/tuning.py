"""Launch configurations: found once by timing a short list, kept by kernel and shape, saved as JSON.

A wrapper looks its configuration up (`Configurations.get`), which neither times nor synchronises, so it works while a
CUDA graph is captured. `Configurations.tune` does the timing, ahead of that, on the tensors it is given.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sdxl_engine.engines.cuda.timing import milliseconds, refuse_capture
from sdxl_engine.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Configuration = dict[str, int]

_KERNELS: dict[str, Configurations] = {}
_REPETITIONS = 7
_LEAST_LAUNCHES = 4


class Configurations:
    """The launch configurations of one kernel.

    Args:
        kernel: Its name, as the JSON file has it.
    """

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.chosen: dict[str, Configuration] = {}
        _KERNELS[kernel] = self

    def get(self, key: str, default: Configuration) -> Configuration:
        """What was tuned or loaded for `key`; `default` where nothing was."""
        return self.chosen.get(key, default)

    def tune(
        self, key: str, candidates: Sequence[Configuration], launch: Callable[[Configuration], object]
    ) -> list[tuple[float, Configuration]]:
        """Time every candidate, keep the fastest for `key`.

        Args:
            key: What `get` will be asked for.
            candidates: To be tried, in order.
            launch: Starts the kernel once with one of them.

        Returns:
            (milliseconds, configuration) of those that ran, the fastest first.

        Raises:
            RuntimeError: None of them could be launched, the error of the last one is the cause; or a CUDA graph is
                being captured.
        """
        refuse_capture()
        timed: list[tuple[float, Configuration]] = []
        failure: Exception | None = None
        for candidate in candidates:
            try:
                timed.append((graphed_milliseconds([partial(launch, candidate)], _REPETITIONS), candidate))
            except Exception as error:  # noqa: BLE001 - a configuration that does not fit this GPU is no candidate
                failure = error
        if not timed:
            raise RuntimeError(f"{self.kernel}: none of {len(candidates)} configurations runs for {key}") from failure
        timed.sort(key=lambda pair: pair[0])
        self.chosen[key] = dict(timed[0][1])
        return timed


def graphed_milliseconds(launches: Sequence[Callable[[], object]], repetitions: int) -> float:
    """Median time of one of `launches`, taken in turn from one CUDA graph: small kernels outrun the host otherwise.

    Args:
        launches: Each starts work on the current stream, as a capture allows.
        repetitions: Of the graph, which holds each of them, and at least four launches in all.
    """
    for launch in launches:
        launch()
    rounds = -(-_LEAST_LAUNCHES // len(launches))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    return milliseconds(graph.replay, repetitions) / (rounds * len(launches))


def save_configurations(path: Path) -> None:
    """Write every kernel's configurations to a JSON file: {kernel: {key: {name: value}}}."""
    write_json(path, {name: kernel.chosen for name, kernel in sorted(_KERNELS.items())})


def load_configurations(path: Path) -> None:
    """Take over what `save_configurations` wrote; kernels that are not imported yet must be imported before.

    Raises:
        AssetError: The file is missing or no JSON.
        ValueError: It names a kernel that is not there.
    """
    document: Mapping[str, Any] = read_json(path, "the file of launch configurations")
    unknown = sorted(set(document) - set(_KERNELS))
    if unknown:
        raise ValueError(f"{path} has configurations of {', '.join(unknown)}, expected {', '.join(sorted(_KERNELS))}")
    for name, chosen in document.items():
        _KERNELS[name].chosen.update(chosen)
