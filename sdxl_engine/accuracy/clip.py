"""CLIP score: 100 times the cosine between the embeddings of an image and of its caption.

Hessel, Holtzman, Forbes, Le Bras and Choi, "CLIPScore: A Reference-free Evaluation Metric for Image
Captioning", 2021, as MLPerf's `text_to_image/tools/clip/clip_encoder.py` computes it: not clamped at 0.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.accuracy.precision import full_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from sdxl_engine.accuracy.networks import ClipNetwork


def image_transform(
    image_size: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[NDArray[np.uint8]], torch.Tensor]:
    """From one image (H, W, 3) uint8 RGB to the tower's input (3, image_size, image_size) float32.

    PIL's bicubic resize of the shorter side (PIL always antialiases), centre crop, scaling to [0, 1], then
    `mean` and `std` of each channel. The resize works on uint8, as in the reference: torch's own resize of a
    float tensor gives other values. The rest is torchvision's `ToTensor` and `Normalize` to the last bit, in numpy,
    which does not start threads of its own in each thread that calls it.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    steps = Compose(
        [Image.fromarray, Resize(image_size, interpolation=InterpolationMode.BICUBIC), CenterCrop(image_size)]
    )
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def transform(image: NDArray[np.uint8]) -> torch.Tensor:
        pixels = np.asarray(steps(np.ascontiguousarray(image)), np.float32)
        pixels /= 255
        pixels -= centre
        pixels /= spread
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return transform


class ClipScore:
    """Scores images against captions.

    What a batch scores depends on nothing that was scored before it, to the last bit: no embedding is kept, since
    its last bits would be those of the batch that it was computed in.
    """

    def __init__(self, network: ClipNetwork) -> None:
        self.network = network

    def __call__(self, images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float64]:
        """The score of each image with its own caption.

        Args:
            images: (B, H, W, 3) uint8 RGB, 0 to 255.
            captions: B captions.

        Returns:
            (B,) float64 in [-100, 100]; NaN where an embedding is.

        Raises:
            AccuracyError: see `full_float32`.
        """
        import torch

        model, device = self.network.model, self.network.device
        # Before the networks are locked: those of the other score run meanwhile.
        pixels = self.pixels(images)
        with torch.inference_mode(), full_float32(device):
            image_embeddings = _unit(model.encode_image(pixels.to(device)))
            cosines = (image_embeddings.double() * self._text_embeddings(captions).double()).sum(dim=-1)
            scores: NDArray[np.float64] = 100 * cosines.cpu().numpy()
        return scores

    def pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """What the image tower takes: (B, 3, S, S) float32, in the CPU's memory.

        PIL resizes without holding the interpreter's lock, so threads share the work.
        """
        import torch

        with ThreadPoolExecutor(min(len(images), len(os.sched_getaffinity(0)))) as pool:
            return torch.stack(list(pool.map(self.network.preprocess, images)))

    def _text_embeddings(self, captions: Sequence[str]) -> torch.Tensor:
        """(B, E) float32 of length 1; a caption that comes more than once is embedded once."""
        rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        ids = self.network.tokenise(list(rows)).to(self.network.device)
        return _unit(self.network.model.encode_text(ids))[[rows[caption] for caption in captions]]


def _unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Each row of (B, E) scaled to length 1; a zero row becomes NaN, since it has no direction."""
    unit: torch.Tensor = embeddings / embeddings.norm(dim=-1, keepdim=True)
    return unit
