"""Stage 2: the metric networks, a small CLIP for the CLIP score and a feature network for FID."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from sdxl_engine.accuracy.feature_network import FeatureNetwork
from sdxl_engine.files import write_json
from sdxl_engine.shapes.train.attributes import AttributeHead, labels
from sdxl_engine.shapes.train.loop import Trainer
from sdxl_engine.shapes.train.networks import (
    CLIP_TOKENS,
    FEATURE_CHANNELS,
    FEATURE_DIMS,
    FEATURE_SIDE,
    clip_config,
    new_clip,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.shapes.train.data import Pool
    from sdxl_engine.shapes.train.recipe import Stage

ATTRIBUTE_WEIGHT = 0.5
LOGIT_SCALE = 20.0
"""Inverse temperature, fixed: with a learned one the cosines of true pairs shrink as it grows."""


def _save(network: nn.Module, config: dict[str, object], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "config.json", config)


def train_clip(stage: Stage, pool: Pool, bundle: Path, work: Path, stop_at: float | None) -> bool:
    """Train and save `metrics/clip/`: contrastive, with attribute heads on both towers. Returns whether complete."""
    device = pool.first.device
    config = clip_config(pool.eos + 1)
    clip = new_clip(config).to(device)
    clip.logit_scale.requires_grad_(False)
    heads = nn.ModuleList([AttributeHead(config["embed_dim"]) for _ in range(2)]).to(device)
    mean = torch.tensor(config["mean"], device=device)[:, None, None]
    std = torch.tensor(config["std"], device=device)[:, None, None]

    def embed(rows: Tensor) -> tuple[Tensor, Tensor]:
        picture = (pool.pictures(rows) - mean) / std
        return clip.encode_image(picture), clip.encode_text(pool.second[rows, :CLIP_TOKENS])  # type: ignore[operator]

    def loss() -> Tensor:
        rows = pool.draw(stage.batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            image, text = embed(rows)
        wanted = labels(pool, rows)
        # Two phrasings of one scene in a batch are both right: the target is spread over equal scenes.
        same = (wanted[:, None] == wanted[None]).all(dim=-1).float()
        target = same / same.sum(dim=1, keepdim=True)
        logits = LOGIT_SCALE * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
        contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        attributes: Tensor = heads[0](image.float(), wanted) + heads[1](text.float(), wanted)
        return contrast + ATTRIBUTE_WEIGHT * attributes

    trainer = Trainer("clip", stage, [clip, heads], loss, work)
    if not trainer.run(stop_at=stop_at):
        return False
    clip.eval()
    with torch.no_grad():
        rows = pool.draw(min(512, stage.batch))
        image, text = (F.normalize(side.float(), dim=-1) for side in embed(rows))
        wanted = labels(pool, rows)
        cosine = image @ text.T
        print(
            f"clip: matched {100 * float(cosine.diag().mean()):.2f}, shuffled {100 * float(cosine.mean()):.2f}, "
            f"top-1 of {len(rows)} {float((cosine.argmax(1).cpu() == torch.arange(len(rows))).float().mean()):.3f}, "
            f"all attributes right: picture {heads[0].accuracy(embed(rows)[0].float(), wanted):.3f}"  # type: ignore[operator]
        )
    _save(clip, config, bundle / "metrics" / "clip")
    shutil.copytree(bundle / "tokenizer_2", bundle / "metrics" / "clip" / "tokenizer", dirs_exist_ok=True)
    return True


def train_features(stage: Stage, pool: Pool, bundle: Path, work: Path, stop_at: float | None) -> bool:
    """Train and save `metrics/features/`: attribute classification on slightly noisy renders."""
    device = pool.first.device
    network = FeatureNetwork(channels=FEATURE_CHANNELS, dims=FEATURE_DIMS).to(device)
    head = AttributeHead(FEATURE_DIMS).to(device)

    def prepare(rows: Tensor) -> Tensor:
        picture = F.interpolate(pool.pictures(rows), (FEATURE_SIDE, FEATURE_SIDE), mode="bilinear", align_corners=False)
        return 2 * picture - 1

    def loss() -> Tensor:
        rows = pool.draw(stage.batch)
        picture = prepare(rows)
        noisy = picture + 0.05 * torch.rand(len(rows), 1, 1, 1, device=device) * torch.randn_like(picture)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            features = network(noisy)
        result: Tensor = head(features.float(), labels(pool, rows))
        return result

    trainer = Trainer("features", stage, [network, head], loss, work)
    if not trainer.run(stop_at=stop_at):
        return False
    network.eval()
    rows = pool.draw(min(512, stage.batch))
    with torch.no_grad():
        print(f"features: all attributes right {head.accuracy(network(prepare(rows)), labels(pool, rows)):.3f}")
    config = {"channels": list(FEATURE_CHANNELS), "dims": FEATURE_DIMS, "image_size": FEATURE_SIDE}
    _save(network, config, bundle / "metrics" / "features")
    return True
