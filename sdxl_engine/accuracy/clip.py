"""CLIP score: 100 times the cosine between the embeddings of an image and of its caption.

Hessel, Holtzman, Forbes, Le Bras and Choi, "CLIPScore: A Reference-free Evaluation Metric for Image
Captioning", 2021, as MLPerf's `text_to_image/tools/clip/clip_encoder.py` computes it: not clamped at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
    float tensor gives other values.
    """
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    steps = Compose(
        [
            Image.fromarray,
            Resize(image_size, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(image_size),
            ToTensor(),
            Normalize(mean, std),
        ]
    )

    def transform(image: NDArray[np.uint8]) -> torch.Tensor:
        tensor: torch.Tensor = steps(np.ascontiguousarray(image))
        return tensor

    return transform


class ClipScore:
    """Scores images against captions.

    The embedding of a caption is kept, so that memory grows with the count of different captions (2 KiB each
    for the official network), not with that of images.
    """

    def __init__(self, network: ClipNetwork) -> None:
        self.network = network
        self._texts: dict[str, torch.Tensor] = {}

    def __call__(self, images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float64]:
        """The score of each image with its own caption.

        Args:
            images: (B, H, W, 3) uint8 RGB, 0 to 255.
            captions: B captions.

        Returns:
            (B,) float64 in [-100, 100]; NaN where an embedding is.
        """
        import torch

        with torch.inference_mode():
            pixels = torch.stack([self.network.preprocess(image) for image in images])
            image_embeddings = _unit(self.network.model.encode_image(pixels))
            text_embeddings = self._text_embeddings(captions)
            cosines = (image_embeddings.double() * text_embeddings.double()).sum(dim=-1)
            scores: NDArray[np.float64] = 100 * cosines.numpy()
        return scores

    def _text_embeddings(self, captions: Sequence[str]) -> torch.Tensor:
        """(B, E) float32 of length 1."""
        import torch

        new = [caption for caption in dict.fromkeys(captions) if caption not in self._texts]
        if new:
            embeddings = _unit(self.network.model.encode_text(self.network.tokenise(new)))
            self._texts.update(zip(new, embeddings, strict=True))
        return torch.stack([self._texts[caption] for caption in captions])


def _unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Each row of (B, E) scaled to length 1; a zero row becomes NaN, since it has no direction."""
    unit: torch.Tensor = embeddings / embeddings.norm(dim=-1, keepdim=True)
    return unit
