import shutil

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json, tree_files
from sdxl_engine.shapes.bundle import BUNDLE, MANIFEST, verified

MEGABYTE = 1_000_000


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(BUNDLE, tmp_path / "bundle")


def test_the_shipped_bundle_is_whole_and_small():
    verified(BUNDLE)
    sizes = {name: path.stat().st_size for name, path in tree_files(BUNDLE)}
    pruned = sum(size for name, size in sizes.items() if name.startswith("unet_pruned/"))
    assert sum(sizes.values()) - pruned <= 24 * MEGABYTE
    assert 0 < pruned <= 8 << 20


def test_a_flipped_byte_is_found_and_named(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AssetError, match="damaged in 1 file") as caught:
        verified(copy)
    assert "unet/diffusion_pytorch_model.safetensors: sha256" in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "foreign"])
def test_a_missing_or_foreign_file_is_found(copy, change):
    if change == "missing":
        (copy / "latents.npy").unlink()
        message = "latents.npy: missing"
    else:
        (copy / "notes.txt").write_text("x")
        message = "notes.txt: not in the manifest"
    with pytest.raises(AssetError) as caught:
        verified(copy)
    assert message in str(caught.value)


def test_the_manifest_names_every_file():
    named = read_json(BUNDLE / MANIFEST, "the manifest")["files"].keys()
    assert named == {name for name, _ in tree_files(BUNDLE)} - {MANIFEST}
