"""Weights come whole from their files, whatever the files' number and dtype, or not at all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_engine.errors import AssetError
from sdxl_engine.models import weights
from sdxl_engine.models.load import load_network
from sdxl_engine.models.weights import read_weights, weight_files, weight_sizes


@pytest.fixture
def part(tmp_path):
    """Three tensors in two dtypes."""
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, 2.5]).half(), "c": torch.ones(4)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("remapped_after", [1, 1 << 20])
def test_tensors_are_converted(part, monkeypatch, remapped_after):
    monkeypatch.setattr(weights, "REMAPPED_AFTER", remapped_after)
    found = dict(read_weights(part, torch.float16))
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys("abc", torch.float16)
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["b"].tolist() == [1.5, 2.5]


def test_sizes_come_from_the_headers(part):
    assert weight_sizes(part) == {"F32": 10, "F16": 2}


def test_shards_are_one_part(part):
    tensors = load_file(part / "model.safetensors")
    (part / "model.safetensors").unlink()
    places = {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == file}, part / file)
    (part / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert dict(read_weights(part, torch.float32)).keys() == set("abc")
    (part / "2.safetensors").unlink()
    with pytest.raises(AssetError, match="a shard of the weights is missing"):
        weight_files(part)


def test_a_file_cut_short_is_damaged(part):
    path = part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(AssetError, match="a file of weights is damaged"):
        weight_sizes(part)


@pytest.fixture
def copy(bundle, tmp_path):
    """A checkpoint to damage."""
    for name in ("unet", "text_encoder", "vae"):
        shutil.copytree(bundle / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("network", "file", "lost"),
    [
        ("unet", "unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("clip1", "text_encoder/model.safetensors", "encoder.layers.0.mlp.fc1.bias"),
        ("vae", "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias"),
    ],
)
def test_a_weight_that_is_not_there_is_not_drawn_at_random(copy, network, file, lost):
    tensors = load_file(copy / file)
    del tensors[lost]
    save_file(tensors, copy / file, {"format": "pt"})
    with pytest.raises(AssetError, match="are not complete") as caught:
        load_network(copy, network)
    assert lost in str(caught.value)


@pytest.mark.parametrize("network", ["unet", "clip1"])
def test_a_weight_of_another_shape_is_refused(copy, network):
    part, name = {"unet": ("unet", "conv_in.bias"), "clip1": ("text_encoder", "final_layer_norm.bias")}[network]
    file = weight_files(copy / part)[0]
    tensors = load_file(file)
    save_file(tensors | {name: torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(AssetError, match=f"cannot load {part}"):
        load_network(copy, network)


def test_a_part_without_weights_is_named(copy):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(AssetError, match="the weights of vae are missing"):
        load_network(copy, "vae")
