"""The transformer layers of an SDXL UNet: which there are, running without some, and a UNet that lacks them.

A UNet whose attentions have different numbers of layers is one that diffusers loads as it is: the entries of
`transformer_layers_per_block` may be lists, one for each down block with a number for each attention, and so may those
of `reverse_transformer_layers_per_block` for the up blocks. The middle block takes the last entry of the former, so a
fourth entry after those of the three down blocks is its own (`UNet2DConditionModel.__init__` of diffusers 0.42.1).
An attention may have no layer: its norm and two projections stay, since diffusers has no name for a block with some
attentions.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_LAYER = re.compile(r"(.*)\.transformer_blocks\.(\d+)\.(.*)")


class Layer(NamedTuple):
    """One transformer layer (diffusers' BasicTransformerBlock).

    Args:
        attention: Name of the Transformer2DModel, such as `down_blocks.1.attentions.0`.
        place: Where it stands there in the full UNet, from 0.
    """

    attention: str
    place: int

    def __str__(self) -> str:
        return f"{self.attention}.transformer_blocks.{self.place}"


def attentions(unet: nn.Module) -> dict[str, Any]:
    """The Transformer2DModels of a UNet by name, in the order in which they run."""
    found = {name: module for name, module in unet.named_modules() if hasattr(module, "transformer_blocks")}
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    return dict(sorted(found.items(), key=lambda item: order[item[0].partition(".")[0]]))


def layers_of(unet: nn.Module) -> list[Layer]:
    """Every transformer layer, in the order in which they run."""
    return [
        Layer(name, index) for name, each in attentions(unet).items() for index in range(len(each.transformer_blocks))
    ]


@contextlib.contextmanager
def without(unet: nn.Module, dropped: Collection[Layer]) -> Iterator[None]:
    """Run a UNet as if it lacked some layers: what enters one goes on to the next."""
    whole = {name: each.transformer_blocks for name, each in attentions(unet).items()}
    try:
        for name, each in attentions(unet).items():
            kept = (layer for index, layer in enumerate(whole[name]) if Layer(name, index) not in dropped)
            each.transformer_blocks = nn.ModuleList(kept)
        yield
    finally:
        for name, each in attentions(unet).items():
            each.transformer_blocks = whole[name]


def smaller_config(unet: Any, dropped: Collection[Layer]) -> dict[str, Any]:
    """The configuration of a UNet without some layers; see the top of this file."""
    counts = {
        name: sum(Layer(name, index) not in dropped for index in range(len(each.transformer_blocks)))
        for name, each in attentions(unet).items()
    }

    def of(name: str, block: Any) -> Any:
        own = [counts[f"{name}.attentions.{number}"] for number in range(len(getattr(block, "attentions", ())))]
        # A block without attentions does not look at its entry.
        return own or 1

    down = [of(f"down_blocks.{number}", block) for number, block in enumerate(unet.down_blocks)]
    up = [of(f"up_blocks.{number}", block) for number, block in enumerate(unet.up_blocks)]
    middle = of("mid_block", unet.mid_block)
    changes = {"transformer_layers_per_block": [*down, middle], "reverse_transformer_layers_per_block": up}
    config = dict(unet.config) | changes
    # Of a UNet that a constructor made: arguments that were not given. `from_config` takes their defaults, whatever
    # the configuration says of them.
    if "_use_default_values" in config:
        config["_use_default_values"] = [name for name in config["_use_default_values"] if name not in changes]
    return config


def smaller_unet(unet: Any, dropped: Collection[Layer]) -> Any:
    """A UNet of its own memory without some layers, with the weights of the others.

    Args:
        unet: The full one, a UNet2DConditionModel.
        dropped: Of `layers_of(unet)`.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        small = UNet2DConditionModel.from_config(smaller_config(unet, dropped))
    places = _places(unet, dropped)
    state = {}
    for name, tensor in unet.state_dict().items():
        match = _LAYER.fullmatch(name)
        if match is None:
            state[name] = tensor.clone()
        elif (place := places.get(Layer(match[1], int(match[2])))) is not None:
            state[f"{match[1]}.transformer_blocks.{place}.{match[3]}"] = tensor.clone()
    small.load_state_dict(state, assign=True)
    return small.train(unet.training)


def _places(unet: nn.Module, dropped: Collection[Layer]) -> Mapping[Layer, int]:
    """Of each layer that is kept, its place in the smaller UNet."""
    places: dict[Layer, int] = {}
    counts: dict[str, int] = {}
    for layer in layers_of(unet):
        if layer not in dropped:
            places[layer] = counts.get(layer.attention, 0)
            counts[layer.attention] = places[layer] + 1
    return places
