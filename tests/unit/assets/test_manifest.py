import hashlib
import re

import pytest

from sdxl_engine.assets.manifest import Asset, read_manifest
from sdxl_engine.errors import AssetError
from sdxl_engine.models.source import DOWNLOADED, METRICS, resolve_model

GROUPS = ("model-fp16", "model-fp32", "data", "metrics")
ASSETS = [asset for name in GROUPS for asset in read_manifest()[name].assets]


def test_every_file_has_a_digest_of_its_algorithm_and_an_address_that_never_changes():
    for asset in ASSETS:
        assert re.fullmatch({"sha256": "[0-9a-f]{64}", "blob": "[0-9a-f]{40}"}[asset.algorithm], asset.digest), asset
        assert re.fullmatch("|[0-9a-f]{32}", asset.md5), asset
        assert asset.url.startswith("https://"), asset
        pinned = re.search(r"/[0-9a-f]{40}/|/[0-9a-f]{64}/", asset.url)
        # pytorch-fid has a tag, and the beginning of the digest in the name.
        assert pinned or f"-{asset.digest[:8]}." in asset.url, asset
    assert [asset.name for asset in ASSETS if asset.size is None] == ["val2014.npz"]


def test_files_go_where_a_run_looks_for_them(tmp_path):
    assert read_manifest()["model-fp16"].target == DOWNLOADED
    assert read_manifest()["metrics"].target == METRICS
    (tmp_path / DOWNLOADED).mkdir(parents=True)
    (tmp_path / DOWNLOADED / "model_index.json").touch()
    model = resolve_model("auto", tmp_path)
    targets = {tmp_path / asset.target for asset in ASSETS}
    assert {model.captions, model.latent, model.checkpoint / "unet" / "config.json"} <= targets


@pytest.mark.parametrize("name", ["model-fp16", "model-fp32"])
def test_what_makes_a_checkpoint_of_a_folder_comes_last(name):
    group = read_manifest()[name]
    within = [asset.target.relative_to(group.target).as_posix() for asset in group.assets]
    assert within[-1] == "model_index.json"
    # diffusers and transformers load these names; the fp16 files have others at their source.
    assert within[:4] == [
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", hashlib.sha256(b"what is up, doc?").hexdigest()),
        ("md5", hashlib.md5(b"what is up, doc?").hexdigest()),
        # Pro Git, chapter 10.2, has this one.
        ("blob", "bd9dbf5aae1a3862dd1526723246b20206e5fc37"),
    ],
)
def test_digests(tmp_path, algorithm, digest):
    path = tmp_path / "a"
    path.write_bytes(b"what is up, doc?")
    assert Asset("a", path, digest, algorithm).found(path) == digest


@pytest.mark.parametrize(
    "text",
    ["[model", "", '[model]\nurl = "u"\n[model.both]\nfiles = [{ name = "a" }]\n', "model = 1"],
    ids=["no TOML", "empty", "no digest", "no table"],
)
def test_a_damaged_manifest_is_an_error(tmp_path, text):
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    with pytest.raises(AssetError, match="manifest of downloads is damaged"):
        read_manifest(path)
