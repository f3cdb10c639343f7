"""A calibrator of ModelOpt's that keeps largest magnitudes by input channel and by denoising step."""

from __future__ import annotations

import torch
from modelopt.torch.quantization.calib import MaxCalibrator
from torch import Tensor


class StepCalibrator(MaxCalibrator):  # type: ignore[misc]
    """Collects one input quantiser's numbers; every call is one step of one batch, in turns.

    Args:
        steps: Denoising steps of a batch.
        axis: That of the channels.
    """

    def __init__(self, steps: int, axis: int) -> None:
        super().__init__()
        self.calls = 0
        self._channel_axis = axis
        self._channels: Tensor | None = None
        self._largest = torch.zeros(steps)
        self._sum = torch.zeros(steps)

    def collect(self, x: Tensor) -> None:
        """See `MaxCalibrator.collect`, which is called too."""
        super().collect(x)
        channels = x.detach().abs().movedim(self._channel_axis, 0).flatten(1).amax(1).float().cpu()
        self._channels = channels if self._channels is None else torch.maximum(self._channels, channels)
        step, largest = self.calls % len(self._sum), channels.max()
        self._largest[step] = torch.maximum(self._largest[step], largest)
        self._sum[step] += largest
        self.calls += 1

    @property
    def channels(self) -> Tensor:
        """(C_in,) float32, over all calls."""
        assert self._channels is not None
        return self._channels

    @property
    def steps(self) -> Tensor:
        """(2, N) float32, by step: the largest of all batches, and the mean of the batches' largest."""
        batches, rest = divmod(self.calls, len(self._sum))
        assert batches > 0 == rest, f"{self.calls} calls are no whole number of batches of {len(self._sum)} steps"
        return torch.stack([self._largest, self._sum / batches])
