"""Loading of the metric networks: what they are, and every way a folder can be wrong."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sdxl_engine.accuracy.networks import load_fid_network, load_shapes_metrics
from sdxl_engine.errors import AssetError
from sdxl_engine.files import sha256


@pytest.fixture
def folder(metrics_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(metrics_folder, tmp_path / "metrics")


def edit(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))


def test_identity_names_every_file_and_choice(networks, metrics_folder):
    identity = networks.identity
    assert networks.variant == identity["variant"] == "shapes"
    assert identity["clip_weights_sha256"] == sha256(metrics_folder / "clip" / "model.safetensors")
    assert identity["fid_weights_sha256"] == sha256(metrics_folder / "features" / "model.safetensors")
    assert identity["statistics_sha256"] == sha256(metrics_folder / "statistics.npz")
    assert identity["clip_activation"] == "QuickGELU"
    assert identity["clip_resize"] == "32 PIL bicubic antialias"
    assert identity["fid_resize"] == "24 bilinear, no antialias, align_corners=False"
    assert set(identity) >= {"clip_config_sha256", "clip_tokenizer_sha256", "fid_config_sha256", "precision"}


def test_weights_are_float32_in_evaluation(networks):
    import torch

    for module in (networks.clip.model, networks.features.module):
        assert not module.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("variant", ["shapes", "torchmetrics"])
def test_features_are_computed_for_a_few_images_at_a_time(networks, images, variant):
    """What the layers pass on for 8 images stays in a CPU's cache."""
    from sdxl_engine.accuracy.torchmetrics_variant import as_torchmetrics

    chosen = networks.features if variant == "shapes" else as_torchmetrics(networks).features
    seen = []

    def module(pixels):
        seen.append(len(pixels))
        return networks.features.module(pixels)

    features = dataclasses.replace(chosen, module=module)(images)
    assert seen == [8, 8, 4]
    assert features.shape == (20, chosen.dims)
    np.testing.assert_allclose(features[-1:], chosen(images[-1:]), rtol=0, atol=1e-5)


def test_loading_leaves_the_callers_random_numbers_alone(metrics_folder):
    import torch

    before = torch.random.get_rng_state()
    load_shapes_metrics(metrics_folder)
    assert torch.equal(before, torch.random.get_rng_state())


def test_captions_are_padded_with_zero_and_truncated_before_the_end_of_text(networks):
    short, long = networks.clip.tokenise(["ab", "abcdefghijklmnopqrstuvwxyz"]).tolist()
    start, end = 53, 54
    assert short == [start, 1, 28, end] + [0] * 16
    assert len(long) == 20
    assert (long[0], long[-1]) == (start, end)


def test_features_are_the_same_in_every_batch_and_run(networks, images):
    whole = networks.features(images)
    assert (whole.shape, whole.dtype) == ((20, 8), np.float32)
    np.testing.assert_array_equal(whole, networks.features(images))
    single = np.concatenate([networks.features(images[row : row + 1]) for row in range(20)])
    np.testing.assert_allclose(single, whole, atol=1e-5)


def test_features_tell_left_from_right(networks):
    image = np.zeros((1, 48, 48, 3), np.uint8)
    image[:, :, :24] = 255
    assert np.abs(networks.features(image) - networks.features(image[:, :, ::-1])).max() > 1e-2


@pytest.mark.parametrize("channels", [[], [8, 12], [4]])
def test_feature_network_refuses_channels_it_cannot_group(channels):
    from sdxl_engine.accuracy.feature_network import FeatureNetwork

    with pytest.raises(ValueError, match="multiples of 8"):
        FeatureNetwork(channels, 8)


def test_plain_gelu_is_refused(folder):
    edit(folder / "clip" / "config.json", quick_gelu=False)
    with pytest.raises(AssetError, match="another activation") as caught:
        load_shapes_metrics(folder)
    assert caught.value.parts["got"] == "GELU"


@pytest.mark.parametrize(
    "name",
    [
        "clip/config.json",
        "clip/model.safetensors",
        "clip/tokenizer/vocab.json",
        "features/config.json",
        "features/model.safetensors",
        "statistics.npz",
    ],
)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(AssetError) as caught:
        load_shapes_metrics(folder)
    assert name.rsplit("/", 1)[-1] in str(caught.value)


@pytest.mark.parametrize("name", ["clip/model.safetensors", "features/model.safetensors", "statistics.npz"])
def test_damaged_file_is_named(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AssetError, match="cannot be read") as caught:
        load_shapes_metrics(folder)
    assert caught.value.parts["from"] == str(path)


def test_weights_of_another_configuration_are_refused(folder):
    edit(folder / "features" / "config.json", dims=9)
    with pytest.raises(AssetError, match="do not fit"):
        load_fid_network(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("clip", {"text_cfg": None}),
        ("clip", {"vision_cfg": {"no_such": 1}}),
        ("features", {"channels": [3]}),
        ("features", {"channels": 8}),
    ],
)
def test_configuration_that_builds_nothing_is_refused(folder, name, changes):
    edit(folder / name / "config.json", **changes)
    with pytest.raises(AssetError, match="builds no network"):
        load_shapes_metrics(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"dims": 8}'])
def test_incomplete_configuration_is_refused(folder, text):
    (folder / "features" / "config.json").write_text(text)
    with pytest.raises(AssetError, match=r"not an object|incomplete"):
        load_fid_network(folder)


def test_end_of_text_must_have_the_highest_id(folder):
    path = folder / "clip" / "tokenizer" / "vocab.json"
    vocab = json.loads(path.read_text())
    vocab["<|endoftext|>"], vocab["!"] = vocab["!"], vocab["<|endoftext|>"]
    path.write_text(json.dumps(vocab))
    with pytest.raises(AssetError, match="tokenizer does not fit"):
        load_shapes_metrics(folder)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(8)}, "cannot be read"),
        ({"mu": np.zeros(9), "sigma": np.eye(9)}, "another network"),
        ({"mu": np.zeros(8), "sigma": np.full((8, 8), np.nan)}, "not finite"),
    ],
)
def test_wrong_statistics_are_refused(folder, arrays, words):
    np.savez(folder / "statistics.npz", **arrays)
    with pytest.raises(AssetError, match=words):
        load_shapes_metrics(folder)


def test_a_single_array_is_no_statistics(folder):
    with (folder / "statistics.npz").open("wb") as file:
        np.save(file, np.zeros(8))
    with pytest.raises(AssetError, match="cannot be read"):
        load_shapes_metrics(folder)
