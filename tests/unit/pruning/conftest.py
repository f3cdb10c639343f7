import pytest
import torch

from sdxl_engine.models.full_size import CONFIGS, make_random_checkpoint
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pruning.states import walk

PROMPTS = [f"prompt number {number}" for number in range(4)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint of SDXL's topology with random weights: 8x8 latents, 17 transformer layers, 0.4 M parameters."""
    unet = {
        "sample_size": 8,
        "block_out_channels": (16, 16, 32),
        "norm_num_groups": 8,
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 2, 2),
        "cross_attention_dim": 48,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text_2 = text | {"hidden_size": 32, "projection_dim": 32}
    vae = {"block_out_channels": (32, 32, 32, 32), "sample_size": 64}
    changes = {"unet": unet, "text_encoder": text, "text_encoder_2": text_2, "vae": vae}
    configs = {name: config | changes[name] for name, config in CONFIGS.items()}
    return make_random_checkpoint(tmp_path_factory.mktemp("tiny"), configs)


@pytest.fixture(scope="session")
def tiny_spec(tiny):
    return read_spec(tiny)


@pytest.fixture
def unet(tiny):
    """The full UNet, which a test may change."""
    return load_networks(tiny)["unet"].unet


@pytest.fixture(scope="session")
def states(tiny):
    return walk(load_networks(tiny), tiny, PROMPTS, seed=0)


@pytest.fixture
def rows():
    """Some states of every prompt."""
    return torch.arange(0, 80, 7)
