import pytest
import torch
from small_sdxl import small_configs

from sdxl_engine.models.full_size import make_random_checkpoint
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.spec import read_spec
from sdxl_engine.pruning.states import walk

PROMPTS = [f"prompt number {number}" for number in range(4)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint of SDXL's topology with random weights: 8x8 latents, 17 transformer layers, 0.4 M parameters."""
    configs = small_configs(block_out_channels=(16, 16, 32), norm_num_groups=8, transformer_layers_per_block=(1, 1, 2))
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
