"""SmoothQuant: channels of a linear layer's input are made alike, and the weights take what they lose.

The factor of a channel is folded into what makes the input, so nothing is added to the network, and by algebra its
outputs stay what they are. Source: Xiao et al. 2023, SmoothQuant (arXiv:2211.10438), equation 4; bounds of the factors
as in ModelOpt's `smoothquant`, which multiplies the input instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sdxl_engine.export.statistics import LayerStatistics

_BOUNDS = (1e-4, 1e4)


def smooth(
    unet: nn.Module, statistics: Mapping[str, LayerStatistics], alpha: float, keeps: Callable[[str], bool]
) -> dict[str, LayerStatistics]:
    """Change the weights of a UNet, in place, for inputs whose channels are of like size.

    Args:
        unet: With transformer layers of diffusers.
        statistics: By layer's name.
        alpha: How much of an input channel's size goes to the weights: 0 none, 1 all.
        keeps: Whether the layer of a name is not quantised; such layers, and those of the same input, are left alone.

    Returns:
        The statistics as they are now.
    """
    changed = dict(statistics)
    for producer, rows, names in _pairs(unet):
        if any(keeps(name) for name in names):
            continue
        layers = [_linear(unet, name) for name in names]
        of_input = torch.stack([changed[name].channels for name in names]).amax(0)
        of_weights = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)
        factors = (of_input.to(of_weights) ** alpha / of_weights ** (1 - alpha)).clamp(*_BOUNDS)
        factors[(of_input == 0) | (of_weights == 0)] = 1
        for name, layer in zip(names, layers, strict=True):
            layer.weight = _fixed(layer.weight * factors)
            seen = replace(changed[name], channels=changed[name].channels / factors.to(of_input))
            changed[name] = replace(seen, weight=_by_output(layer))
        module = unet.get_submodule(producer)
        assert isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm)
        _divide(module, rows, factors)
        if isinstance(module, nn.Linear):
            changed[producer] = replace(changed[producer], weight=_by_output(module))
    return changed


def _pairs(unet: nn.Module) -> Iterator[tuple[str, slice, list[str]]]:
    """What makes an input, which of its outputs do, and the linear layers that read it; the last of a block first.

    The keys and values of cross-attention read the text, which nothing in the UNet makes: they are not smoothed.
    """
    every = slice(None)
    for name, module in unet.named_modules():
        if isinstance(module, Transformer2DModel) and isinstance(module.proj_in, nn.Linear):
            yield f"{name}.norm", every, [f"{name}.proj_in"]
        if isinstance(module, BasicTransformerBlock):
            assert module.norm_type == "layer_norm"
            gated = module.ff.net[0]
            if isinstance(gated, GEGLU):
                # The first half of its outputs is multiplied by a function of the second.
                half = slice(gated.proj.out_features // 2)
                yield f"{name}.ff.net.0.proj", half, [f"{name}.ff.net.2"]
            yield f"{name}.norm3", every, [f"{name}.ff.net.0.proj"]
            for attention in ("attn1", "attn2"):
                yield f"{name}.{attention}.to_v", every, [f"{name}.{attention}.to_out.0"]
            yield f"{name}.norm2", every, [f"{name}.attn2.to_q"]
            yield f"{name}.norm1", every, [f"{name}.attn1.{which}" for which in ("to_q", "to_k", "to_v")]


def _linear(unet: nn.Module, name: str) -> nn.Linear:
    layer = unet.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _divide(module: nn.Linear | nn.LayerNorm | nn.GroupNorm, rows: slice, factors: Tensor) -> None:
    """Divide some outputs of a layer by a factor each."""
    for name in ("weight", "bias"):
        old = getattr(module, name)
        if old is not None:
            divisors = torch.ones(len(old), dtype=old.dtype)
            divisors[rows] = factors
            setattr(module, name, _fixed(old / divisors.reshape(-1, *[1] * (old.dim() - 1))))


def _by_output(layer: nn.Linear) -> Tensor:
    return layer.weight.detach().abs().amax(1).float()


def _fixed(values: Tensor) -> nn.Parameter:
    """New memory: the checkpoint's own is a file that is mapped."""
    return nn.Parameter(values.detach(), requires_grad=False)
