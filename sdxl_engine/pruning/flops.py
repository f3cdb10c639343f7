"""Floating-point operations of a UNet's step by module, from shapes alone: without weights, and nothing is computed.

Counted are the multiplications and additions, two for each pair, of convolutions, linear layers and attention products,
as torch.utils.flop_counter counts them; norms, activations and additions are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdxl_engine.models.unet_split import DeepUnet, ShallowUnet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdxl_engine.models.spec import ModelSpec
    from sdxl_engine.pruning.layers import Layer


def deep_step(config: Mapping[str, Any], spec: ModelSpec) -> dict[str, int]:
    """Operations of a deep step for one image, which is two rows: negative and positive prompt.

    Args:
        config: Of a UNet2DConditionModel.
        spec: The checkpoint's sizes.

    Returns:
        By name of the module in the UNet; a product of queries, keys and values is its attention's own.
    """
    return _step(DeepUnet, "unet", config, spec)


def shallow_step(config: Mapping[str, Any], spec: ModelSpec) -> dict[str, int]:
    """The same of a shallow step."""
    return _step(ShallowUnet, "shallow_unet", config, spec)


def layer_flops(step: Mapping[str, int], layer: Layer) -> int:
    """What one transformer layer takes of a step."""
    return sum(count for name, count in step.items() if name.startswith(f"{layer}."))


def _step(kind: type[nn.Module], network: str, config: Mapping[str, Any], spec: ModelSpec) -> dict[str, int]:
    from diffusers import UNet2DConditionModel

    interface = spec.networks[network]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(config))
        inputs = [torch.empty(tensor.at(interface.rows(1))) for tensor in interface.inputs.values()]
    counts: dict[str, int] = {}

    def convolution(name: str, module: nn.Module, result: Tensor) -> None:
        weight: Any = module.weight
        counts[name] = counts.get(name, 0) + 2 * result.numel() * weight[0].numel()

    def attention(name: str, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = given[0] if given else named["hidden_states"]
        context = named.get("encoder_hidden_states")
        rows, queries, _ = hidden.shape
        keys = queries if context is None else context.shape[1]
        # Queries times keys, and the result times values.
        counts[name] = 4 * rows * queries * keys * module.to_q.out_features

    for name, module in unet.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            # A linear layer's count is that of a convolution of one pixel.
            module.register_forward_hook(lambda each, _, result, name=name: convolution(name, each, result))
        elif hasattr(module, "to_q"):
            module.register_forward_pre_hook(
                lambda each, given, named, name=name: attention(name, each, given, named), with_kwargs=True
            )
    with torch.no_grad():
        kind(unet)(*inputs)
    return counts
