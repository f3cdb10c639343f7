import dataclasses
import json

import pytest
import torch
from small_sdxl import small_configs

from sdxl_engine.errors import UsageError
from sdxl_engine.measure import check
from sdxl_engine.models.full_size import CONFIGS, SPEC, make_random_checkpoint, new_part, random_checkpoint
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.source import resolve_model
from sdxl_engine.models.spec import read_spec
from sdxl_engine.settings import RunSettings

PARAMETERS = {
    "text_encoder": 123_060_480,
    "text_encoder_2": 694_659_840,
    "unet": 2_567_463_684,
    "vae": 83_653_863,
}
"""Of the published checkpoint."""


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_are_those_of_the_published_checkpoint(name):
    with torch.device("meta"):
        part = new_part(name, CONFIGS[name])
    assert sum(parameter.numel() for parameter in part.parameters()) == PARAMETERS[name]


def test_the_spec_is_what_is_read_from_the_configurations(tmp_path):
    for name, config in CONFIGS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_spec(tmp_path) == SPEC


@pytest.fixture(scope="module")
def small():
    """A sixteenth of the width, a thirty-second of the picture."""
    return small_configs(block_out_channels=(32, 32, 64), transformer_layers_per_block=(1, 1, 1))


def test_the_checkpoint_is_made_once_and_loads(small, tmp_path, monkeypatch):
    folder = make_random_checkpoint(tmp_path, small)
    assert folder == random_checkpoint(tmp_path, small)
    spec = read_spec(folder)
    assert (spec.latent_side, spec.image_side, spec.text_widths) == (8, 64, (16, 32))
    networks = load_networks(folder)
    weight = networks["unet"].state_dict()["unet.conv_in.weight"]
    assert weight.dtype == torch.float32
    assert 0.01 < float(weight.std()) < 1
    monkeypatch.setattr("sdxl_engine.models.full_size.new_part", None)
    assert make_random_checkpoint(tmp_path, small) == folder
    assert torch.get_default_dtype() == torch.float32


def test_accuracy_of_random_weights_is_refused(tmp_path):
    settings = RunSettings(model="random", build_dir=tmp_path)
    with pytest.raises(UsageError, match="random weights have no accuracy") as caught:
        check(settings)
    assert "PerformanceOnly" in str(caught.value)
    check(dataclasses.replace(settings, test_mode="PerformanceOnly"))


def test_its_prompts_are_those_of_shapes(tmp_path):
    model = resolve_model("random", tmp_path)
    assert model.name == "random"
    assert model.captions == resolve_model("shapes", tmp_path).captions
    assert model.checkpoint == random_checkpoint(tmp_path)
