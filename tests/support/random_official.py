"""The official metric networks at full size with seeded random weights, and files of them as the published ones are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import pytest
import torch
from pytorch_fid import inception

from sdxl_engine.accuracy.official_files import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.assets.manifest import Asset


@dataclass(frozen=True)
class Official:
    """What `write_official` made.

    Args:
        folder: With the files.
        files: Their digests.
        inception: pytorch-fid's own network, pool3, with the weights in the file.
        clip: open_clip's own network with the weights in the file.
    """

    folder: Path
    files: dict[str, Asset]
    inception: torch.nn.Module
    clip: Any


class _Node(torch.nn.Module):
    def forward(self, x):
        return x


def random_inception() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """pytorch-fid's own constructor, with its download answered by random weights; and those weights."""
    kept = {}

    def fill(network, *_arguments, **_keywords):
        generator = torch.Generator().manual_seed(7)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                fan = module.weight[0].numel()
                module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.data = torch.randn(module.bias.shape, generator=generator) / 10
        kept.update(network.state_dict())

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_arguments, **_keywords: {})
        patch.setattr(torch.nn.Module, "load_state_dict", fill)
        reference = inception.InceptionV3([3]).eval()
    return reference, kept


def random_clip() -> Any:
    """open_clip's ViT-B/32 of OpenAI with random weights, each one a float16 number held as float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    return clip.half().float()


def write_official(folder: Path) -> Official:
    """Write the three files of the variant `mlperf` to `folder`."""
    clip, (reference, weights) = random_clip(), random_inception()
    # OpenAI's archive is TorchScript with the weights in fp16 and three numbers besides.
    archive = _Node()
    for name, value in clip.state_dict().items():
        *path, leaf = name.split(".")
        parent = archive
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, _Node())
            parent = getattr(parent, part)
        parent.register_buffer(leaf, value.half())
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        archive.register_buffer(name, torch.tensor(value))
    torch.jit.trace(archive, torch.zeros(1), check_trace=False).save(str(folder / FILES["clip"].name))
    torch.save(weights, folder / FILES["inception"].name)
    draws = np.random.default_rng(5).normal(size=(2048,))
    np.savez(folder / FILES["statistics"].name, mu=draws, sigma=np.diag(draws**2))
    files = {role: dataclasses.replace(file, digest=file.found(folder / file.name)) for role, file in FILES.items()}
    return Official(folder, files, reference, clip)
