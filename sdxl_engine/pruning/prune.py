"""Prune the UNet of a checkpoint: measure, choose, and write the smaller UNet with a report beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.files import folder_written_whole, sha256, tree_files, write_json
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.models.pruned import FULL, REPORT
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pruning import flops
from sdxl_engine.pruning.choice import check_share, choose
from sdxl_engine.pruning.importance import Importance, spread
from sdxl_engine.pruning.layers import layers_of, smaller_unet
from sdxl_engine.pruning.states import walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

SHARE = 0.68
"""Of the deep step: what NVIDIA's pruned one took, computed from its published samples per second with DeepCache
(2.852) and DeepCachePruned (3.805) on one H100, MLPerf Inference v4.0 open division. How it was pruned is not known."""


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """What to prune.

    Args:
        checkpoint: A diffusers-layout folder.
        prompts: To measure on.
        share: Of the full deep step's operations, at most that much is left.
        timesteps: Of each prompt's steps, how many are measured on.
        seed: Of the initial latents.
        device: Where to measure.
    """

    checkpoint: Path
    prompts: tuple[str, ...]
    share: float = SHARE
    timesteps: int = 5
    seed: int = 0
    device: torch.device | str = "cpu"


def prune(request: PruneRequest, output: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write the pruned UNet, not yet trained, in the diffusers layout (fp16), with the report `pruning.json`.

    Args:
        request: What to prune.
        output: The folder to write, whole or not at all.
        tell: Called with a line for each removal.

    Returns:
        The report.

    Raises:
        UsageError: the share cannot be reached.
        AssetError: the checkpoint does not load.
    """
    networks = {name: each.to(request.device) for name, each in load_networks(request.checkpoint).items()}
    unet: Any = networks["unet"].unet
    spec = read_spec(request.checkpoint)
    step = flops.deep_step(unet.config, spec)
    layers = {layer: flops.layer_flops(step, layer) for layer in layers_of(unet)}
    check_share(layers, sum(step.values()), request.share)
    states = walk(networks, request.checkpoint, list(request.prompts), request.seed)
    importance = Importance(unet, states, spread(len(request.prompts), request.timesteps, STEPS))
    choice = choose(importance.loss, layers, sum(step.values()), request.share, tell)
    small = smaller_unet(unet, choice.dropped)
    report = {
        "share_asked": request.share,
        "share": choice.share,
        "flops": {"full": sum(step.values()), "pruned": sum(flops.deep_step(small.config, spec).values())},
        "parameters": {"full": parameters(unet), "pruned": parameters(small)},
        "dropped": sorted(map(str, choice.dropped)),
        "loss": choice.loss,
        "steps": choice.steps,
        "measured_on": {"prompts": len(request.prompts), "timesteps": request.timesteps, "seed": request.seed},
        "full_unet_sha256": weights_sha256(request.checkpoint / FULL),
    }
    save(small, report, output)
    return report


def save(unet: Any, report: dict[str, Any], output: Path) -> None:
    """Write a UNet in fp16 and its report."""
    with folder_written_whole(output) as aside:
        unet.half().save_pretrained(aside)
        write_json(aside / REPORT, report)


def parameters(module: torch.nn.Module) -> int:
    """How many numbers a network has to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def weights_sha256(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of each file of weights in a folder."""
    return {name: sha256(path) for name, path in tree_files(folder) if path.suffix in {".safetensors", ".bin"}}
