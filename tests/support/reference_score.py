"""MLPerf's formulas for the CLIP score and FID, one image at a time and in float64.

Written from the description of `text_to_image/tools/clip/clip_encoder.py`, `tools/fid/inception.py` and
`tools/fid/fid_score.py` of mlcommons/inference: no batches, no shortcut, and no line of the scorer under test.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import open_clip
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Reference:
    """Scores with float64 copies of the networks.

    Args:
        clip: An `open_clip.CLIP`.
        inception: pytorch-fid's `InceptionV3([3])`.
    """

    def __init__(self, clip: Any, inception: Any) -> None:
        self.clip = copy.deepcopy(clip).double().eval()
        self.inception = copy.deepcopy(inception).double().eval()
        # Both steps are written out in `features`.
        self.inception.resize_input = self.inception.normalize_input = False
        self._texts: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def text(self, caption: str) -> torch.Tensor:
        """The unit embedding of a caption, (512,) float64."""
        if caption not in self._texts:
            self._texts[caption] = F.normalize(self.clip.encode_text(open_clip.tokenize([caption])), dim=-1)[0]
        return self._texts[caption]

    @torch.no_grad()
    def clip_score(self, image: np.ndarray, caption: str) -> float:
        """100 times the cosine of an image (H, W, 3) uint8 with its caption."""
        picture = Image.fromarray(image)
        scale = 224 / min(picture.size)
        width, height = (round(length * scale) for length in picture.size)
        # The last step in 8 bits: what follows is in float64.
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - 224) // 2, (height - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224))) / 255
        tensor = torch.from_numpy((pixels - np.array(MEAN)) / np.array(STD)).permute(2, 0, 1)[None]
        embedding = F.normalize(self.clip.encode_image(tensor), dim=-1)[0]
        return 100 * float(embedding @ self.text(caption))

    @torch.no_grad()
    def features(self, image: np.ndarray) -> np.ndarray:
        """The pool3 features of an image (H, W, 3) uint8, (2048,) float64."""
        unit = torch.from_numpy(image / 255).permute(2, 0, 1)[None]
        small = F.interpolate(unit, size=(299, 299), mode="bilinear", align_corners=False)
        return self.inception(2 * small - 1)[0].flatten().numpy()


def reference_fid(features: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """FID of features (N, D) float64 against true statistics, through the matrix root of the product.

    With N at or below D the covariance lacks full rank, and so does the product. As a product of positive
    semidefinite matrices it has a root nevertheless, but its zero eigenvalues come out of the Schur form as numbers
    of rounding's size and either sign (below 1e-13 where the largest is 3000), whose roots, up to 3e-7, are
    real or imaginary. So the trace of the root has an error of about 1e-6 and an imaginary part of that size.
    The reference drops the imaginary part if its diagonal is below 1e-3. It adds 1e-6 to both diagonals only where
    the root is not finite, which would make FID 0.3 to 0.9 % smaller here; SciPy 1.10.1, which it pins, and
    1.17.1 both give a finite root for 256 images, and the same FID to 1e-8.
    """
    mean, covariance = np.mean(features, axis=0), np.cov(features, rowvar=False)
    with warnings.catch_warnings():
        # Some versions of SciPy say that the product is singular; here it is meant to be.
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        root = scipy.linalg.sqrtm(covariance @ sigma)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(sigma))
        root = scipy.linalg.sqrtm((covariance + offset) @ (sigma + offset))
    if np.iscomplexobj(root):
        largest = np.abs(np.diagonal(root).imag).max()
        if largest > 1e-3:
            raise ValueError(f"imaginary component {largest}")
        root = root.real
    difference = mean - mu
    return float(difference @ difference + np.trace(covariance) + np.trace(sigma) - 2 * np.trace(root))
