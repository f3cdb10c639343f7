"""MLPerf's own scoring loop, image by image on the CPU, for `scorer.py` to be measured against.

Written from the description of `text_to_image/tools/accuracy_coco.py`, `clip/clip_encoder.py` and `fid/fid_score.py`
of mlcommons/inference: batch 1, PyTorch as it is, every caption padded to 77 tokens, every image as float32 at full
size before the resize to 299.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from PIL import Image
from pytorch_fid import inception
from torchvision.transforms import ToTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ReferenceLoop:
    """The loop, with copies of two networks.

    Args:
        clip: Whose weights open_clip's own ViT-B/32 takes.
        network: The Inception that pytorch-fid's `InceptionV3` takes in place of its download.
    """

    def __init__(self, clip: torch.nn.Module, network: torch.nn.Module) -> None:
        self.clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")).eval()
        self.clip.load_state_dict(clip.state_dict())
        self.transform = open_clip.image_transform(224, is_train=False)
        download = inception.fid_inception_v3
        inception.fid_inception_v3 = lambda: copy.deepcopy(network)
        self.inception = inception.InceptionV3([3]).eval()
        inception.fid_inception_v3 = download
        self.to_tensor = ToTensor()

    def pixels(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """What the image tower takes."""
        return self.transform(Image.fromarray(image))[None]

    @torch.no_grad()
    def image_embedding(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 512), of length 1."""
        embedding = self.clip.encode_image(pixels)
        return embedding / embedding.norm(dim=-1, keepdim=True)

    @torch.no_grad()
    def text_embedding(self, caption: str) -> torch.Tensor:
        """(1, 512), of length 1."""
        embedding = self.clip.encode_text(open_clip.tokenize([caption]))
        return embedding / embedding.norm(dim=-1, keepdim=True)

    def unit(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """What pytorch-fid's network takes, (1, 3, H, W) in [0, 1]."""
        return self.to_tensor(Image.fromarray(image))[None]

    @torch.no_grad()
    def features(self, unit: torch.Tensor) -> Any:
        """(2048,) float32; the network resizes itself."""
        return self.inception(unit)[0].squeeze(3).squeeze(2).numpy()[0]

    def score(self, images: NDArray[np.uint8], captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """CLIP scores (B,) and features (B, 2048), both float64; their mean and covariance are computed as well."""
        clip = [
            100 * float((self.image_embedding(self.pixels(image)) * self.text_embedding(caption)).sum())
            for image, caption in zip(images, captions, strict=True)
        ]
        features = np.empty((len(images), 2048))
        for row, image in enumerate(images):
            features[row] = self.features(self.unit(image))
        np.mean(features, axis=0), np.cov(features, rowvar=False)
        return np.array(clip), features
