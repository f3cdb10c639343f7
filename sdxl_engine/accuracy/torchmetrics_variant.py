"""The metric variant `torchmetrics`: the weights of another variant, with the images prepared as torchmetrics does it.

For comparing with scores from elsewhere, never for a gate: MLPerf scores otherwise. Source: torchmetrics 1.9.0,
`functional/multimodal/clip_score.py` and `image/fid.py` with their default arguments.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.networks import ClipNetwork, FidNetwork, MetricNetworks, library_missing
from sdxl_engine.accuracy.variants import TORCHMETRICS

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray


def as_torchmetrics(networks: MetricNetworks) -> MetricNetworks:
    """The same networks with torchmetrics' treatment of the images.

    CLIP: `CLIPScore` gives the images to transformers' CLIP processor, which resizes uint8 tensors with torch
    (bicubic, antialias) where the reference resizes with PIL. FID: `FrechetInceptionDistance` resizes with
    antialias, where the reference has none, and scales by (x - 128) / 128, not 2x / 255 - 1.

    Not taken over: the CLIP mean of torchmetrics is cut off below 0 and both its results are float32; its text
    loses the end marker where a caption is longer than the text tower takes. The true statistics stay
    those of `networks`, made without antialias, as for one who puts val2014.npz into torchmetrics.

    Args:
        networks: Of any variant; its modules are shared, not copied.

    Returns:
        Networks of the variant `torchmetrics`, whose identity keeps the digests and says what differs.

    Raises:
        UnavailableError: a library of the extra `metrics` is not installed.
    """
    try:
        preprocess, clip_resize = _processor(networks.clip)
    except ModuleNotFoundError as error:
        raise library_missing(error, f"the metric variant {TORCHMETRICS}") from None
    clip_differs = {"clip_resize": clip_resize}
    fid_differs = {
        "fid_resize": f"{networks.features.image_size} bilinear, antialias, align_corners=False, (x - 128) / 128"
    }
    clip = dataclasses.replace(networks.clip, preprocess=preprocess, identity=networks.clip.identity | clip_differs)
    features = TorchmetricsFidNetwork(
        networks.features.module,
        networks.features.image_size,
        networks.features.dims,
        networks.features.identity | fid_differs,
        networks.features.device,
    )
    identity = networks.identity | clip_differs | fid_differs
    identity |= {"variant": TORCHMETRICS, "weights_and_statistics_of": networks.variant}
    return MetricNetworks(TORCHMETRICS, clip, features, networks.statistics, identity)


class TorchmetricsFidNetwork(FidNetwork):
    """Features of images that are resized and scaled as `torchmetrics.image.fid.NoTrainInceptionV3` does it."""

    def pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """See `FidNetwork.pixels`."""
        import torch
        import torch.nn.functional as F

        whole = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        size = (self.image_size, self.image_size)
        small = F.interpolate(whole, size=size, mode="bilinear", align_corners=False, antialias=True)
        return ((small - 128) / 128).to(self.device)


def input_scale(clip: ClipNetwork) -> tuple[int, list[float], list[float]]:
    """What `clip.preprocess` does to a plain image: (side in pixels, mean, standard deviation of each channel).

    Read off two plain images: black becomes -mean / std and white (1 - mean) / std. Mean and deviation are in [0, 1]
    and exact up to float32 rounding.
    """
    black, white = (clip.preprocess(np.full((8, 8, 3), level, dtype=np.uint8)).double() for level in (0, 255))
    std = 1 / (white - black).mean(dim=(1, 2))
    mean = -black.mean(dim=(1, 2)) * std
    return black.shape[-1], mean.tolist(), std.tolist()


def _processor(clip: ClipNetwork) -> tuple[Callable[[NDArray[np.uint8]], torch.Tensor], str]:
    """The CLIP processor of transformers with the side, mean and deviation of `clip`; and its name for the identity."""
    import torch
    import transformers

    side, mean, std = input_scale(clip)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=mean, image_std=std
    )

    def preprocess(image: NDArray[np.uint8]) -> torch.Tensor:
        channels_first = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        pixels: torch.Tensor = processor(images=[channels_first], return_tensors="pt")["pixel_values"][0]
        return pixels

    return preprocess, f"{side} transformers {transformers.__version__} CLIPImageProcessor, {processor.backend}"
