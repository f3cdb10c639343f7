"""Scorers that look like the reference's and are not: each changes one thing that is easily got wrong."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional

from sdxl_engine.accuracy.networks import ClipNetwork, FidNetwork, MetricNetworks
from sdxl_engine.accuracy.torchmetrics_variant import input_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


def gelu(clip: ClipNetwork) -> ClipNetwork:
    """GELU in place of QuickGELU, as open_clip 2.29 and newer build `ViT-B-32`."""
    model = copy.deepcopy(clip.model)
    for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
        block.mlp.gelu = torch.nn.GELU()
    return dataclasses.replace(clip, model=model)


def tensor_resize(clip: ClipNetwork) -> ClipNetwork:
    """torch's bicubic resize of a float tensor, with antialias, in place of PIL's of 8-bit values."""
    side, mean, std = input_scale(clip)

    def preprocess(image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        small = functional.resize(pixels, [side], functional.InterpolationMode.BICUBIC, antialias=True)
        return functional.normalize(functional.center_crop(small, [side]), mean, std)

    return dataclasses.replace(clip, preprocess=preprocess)


class _TextIn:
    """The image tower as it is, the text tower with weights and arithmetic of another type."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        self.encode_image = model.encode_image
        self.other = copy.deepcopy(model).to(dtype)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        return self.other.encode_text(ids).float()


def text_in(dtype: torch.dtype) -> Callable[[ClipNetwork], ClipNetwork]:
    """The text tower in `dtype`."""
    return lambda clip: dataclasses.replace(clip, model=_TextIn(clip.model, dtype))


class _Resized(FidNetwork):
    def resize(self, unit: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self, images: np.ndarray) -> np.ndarray:
        unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return self.module(2 * self.resize(unit) - 1).reshape(len(images), self.dims).numpy()


class _Antialias(_Resized):
    def resize(self, unit: torch.Tensor) -> torch.Tensor:
        size = (self.image_size, self.image_size)
        return F.interpolate(unit, size=size, mode="bilinear", align_corners=False, antialias=True)


class _TensorFlow1(_Resized):
    def resize(self, unit: torch.Tensor) -> torch.Tensor:
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        return interpolate_bilinear_2d_like_tensorflow1x(unit, size=(self.image_size,) * 2, align_corners=False)


def antialias(features: FidNetwork) -> FidNetwork:
    """Antialias in the resize before Inception."""
    return _Antialias(features.module, features.image_size, features.dims)


def tensorflow_resize(features: FidNetwork) -> FidNetwork:
    """TensorFlow 1's bilinear resize, whose sample points lie half a pixel off; torch-fidelity's."""
    return _TensorFlow1(features.module, features.image_size, features.dims)


OF_CLIP = {
    "GELU in place of QuickGELU": gelu,
    "torch's resize of a float tensor in place of PIL's": tensor_resize,
    "text tower in fp16": text_in(torch.float16),
    "text tower in bf16": text_in(torch.bfloat16),
}
OF_FID = {
    "antialias in the resize": antialias,
    "TensorFlow 1's resize (torch-fidelity)": tensorflow_resize,
}


def apply(networks: MetricNetworks, name: str) -> MetricNetworks:
    """`networks` with the one change that `name` says."""
    if name in OF_CLIP:
        return dataclasses.replace(networks, clip=OF_CLIP[name](networks.clip))
    return dataclasses.replace(networks, features=OF_FID[name](networks.features))
