"""A checkpoint of another model is refused with what it is."""

import json
import shutil

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.models.part_config import PARTS
from sdxl_engine.models.spec import read_spec


@pytest.fixture
def checkpoint(bundle, tmp_path):
    """The configuration of `shapes`, and a way to change it."""
    shutil.copyfile(bundle / "model_index.json", tmp_path / "model_index.json")
    for part in PARTS:
        (tmp_path / part).mkdir()
        shutil.copyfile(bundle / part / "config.json", tmp_path / part / "config.json")
    return tmp_path


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(checkpoint):
    with pytest.raises(AssetError) as caught:
        read_spec(checkpoint)
    return str(caught.value)


def test_stable_diffusion_1(checkpoint):
    shutil.rmtree(checkpoint / "text_encoder_2")
    (checkpoint / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    said = refused(checkpoint)
    assert "this checkpoint has no text_encoder_2" in said
    assert "StableDiffusionPipeline, as of Stable Diffusion 1 or 2" in said


def test_the_refiner(checkpoint):
    shutil.rmtree(checkpoint / "text_encoder")
    index = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    (checkpoint / "model_index.json").write_text(json.dumps(index))
    assert "StableDiffusionXLImg2ImgPipeline, as of the refiner of Stable Diffusion XL" in refused(checkpoint)


@pytest.mark.parametrize("part", PARTS)
def test_a_network_that_was_not_downloaded(checkpoint, part):
    shutil.rmtree(checkpoint / part)
    said = refused(checkpoint)
    assert f"this checkpoint has no {part}" in said
    assert "the download is not complete" in said


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("unet", {"addition_embed_type": None}, "not a Stable Diffusion XL"),
        ("unet", {"down_block_types": ["CrossAttnDownBlock2D"] * 3}, "not a Stable Diffusion XL"),
        ("unet", {"in_channels": 9}, "channels of a latent: 4\n  expected: 9"),
        ("text_encoder", {"hidden_size": 1024}, "width of both text encoders"),
        ("text_encoder_2", {"projection_dim": 7}, "width of text_encoder_2's projection: 7"),
    ],
)
def test_networks_that_do_not_fit(checkpoint, part, values, says):
    change(checkpoint / part / "config.json", **values)
    assert says in refused(checkpoint)


def test_a_configuration_that_lacks_a_value(checkpoint):
    path = checkpoint / "vae" / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]
    path.write_text(json.dumps(config))
    assert "no 'scaling_factor'" in refused(checkpoint)
