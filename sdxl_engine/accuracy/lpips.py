"""LPIPS, the learned perceptual distance of two images, where its network is on this machine; nothing is downloaded.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
2018: AlexNet's features with the linear weights of version 0.1, which torchmetrics carries in its package.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_engine.errors import AssetError, UnavailableError
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Lpips = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]

WEIGHTS = "alexnet-owt-7be5be79.pth"
"""torchvision's AlexNet, IMAGENET1K_V1; the name ends with the first eight digits of its SHA-256."""

DIGEST = "7be5be79"
ADDRESS = f"https://download.pytorch.org/models/{WEIGHTS}"


def load_lpips() -> Lpips:
    """The distance of two images (H, W, 3) uint8 RGB, 0 to 255: 0 for equal ones, higher is further.

    Raises:
        UnavailableError: torchmetrics is not installed, or AlexNet's weights are not in torch's own folder for them.
        AssetError: the weights are there but are other ones.
    """
    missing = [name for name in ("torchmetrics", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            "LPIPS cannot be computed", got=f"no module {missing[0]!r}", fix="pip install torchmetrics"
        )
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    # Looked at first: torchvision would download them.
    if not path.is_file():
        raise UnavailableError("LPIPS cannot be computed", got=f"no {path}", fix=f"put {ADDRESS} there")
    digest = sha256(path)
    if not digest.startswith(DIGEST):
        raise AssetError(
            "LPIPS's weights are damaged",
            got=f"sha256 {digest[:12]}…",
            expected=f"sha256 {DIGEST}…",
            source=path,
            fix=f"replace them by {ADDRESS}",
        )
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

    def distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
        pair = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255 for image in (first, second))
        with torch.inference_mode():
            return float(network(*pair))

    return distance
