"""A metrics folder with small networks of seeded random weights, as a bundle holds it."""

import json
from pathlib import Path

import numpy as np
import pytest

CLIP_CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 64, "width": 24, "heads": 2, "layers": 2},
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
}
FEATURES_CONFIG = {"image_size": 24, "channels": [8, 8, 16, 16], "dims": 8}
STATISTICS_SEED = 5


def write_tokenizer(folder: Path) -> None:
    """One token per letter, with and without the end of a word; end of text has the highest id."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", *letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: key for key, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


@pytest.fixture(scope="session")
def metrics_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    from sdxl_engine.accuracy.feature_network import FeatureNetwork

    folder = tmp_path_factory.mktemp("metrics")
    write_tokenizer(folder / "clip" / "tokenizer")
    (folder / "features").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        clip = open_clip.CLIP(**{key: CLIP_CONFIG[key] for key in CLIP_CONFIG if key not in ("mean", "std")})
        features = FeatureNetwork(FEATURES_CONFIG["channels"], FEATURES_CONFIG["dims"])
    for name, module, config in (("clip", clip, CLIP_CONFIG), ("features", features, FEATURES_CONFIG)):
        (folder / name / "config.json").write_text(json.dumps(config))
        state = {key: tensor.half().contiguous() for key, tensor in module.state_dict().items()}
        save_file(state, folder / name / "model.safetensors")
    draws = np.random.default_rng(STATISTICS_SEED).normal(size=(50, FEATURES_CONFIG["dims"]))
    np.savez(folder / "statistics.npz", mu=draws.mean(axis=0), sigma=np.cov(draws, rowvar=False))
    return folder


@pytest.fixture(scope="session")
def networks(metrics_folder: Path):
    from sdxl_engine.accuracy.networks import load_shapes_metrics

    return load_shapes_metrics(metrics_folder)


@pytest.fixture(scope="session")
def captions() -> dict[int, str]:
    words = ("red", "circle", "left", "of", "a", "blue", "box")
    return {100 + key: f"a {words[key % 7]} {words[key % 5]}" for key in range(20)}


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """(20, 40, 48, 3) uint8: noise, with gradients, one black and one white."""
    generator = np.random.default_rng(11)
    batch = generator.integers(0, 256, (20, 40, 48, 3), dtype=np.uint8)
    batch[3:9] = np.linspace(0, 255, 48, dtype=np.uint8)[:, None]
    batch[6:9] //= np.array([[[1, 2, 3]]], dtype=np.uint8)
    batch[9], batch[10] = 0, 255
    return batch
