"""The variant `mlperf`: full-size networks with seeded random weights, in files as the published ones are laid out."""

import hashlib

import numpy as np
import pytest

from sdxl_engine.accuracy import official
from sdxl_engine.accuracy.official import load_official_metrics
from sdxl_engine.accuracy.official_files import FILES, require_files
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.errors import AssetError, UnavailableError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    from random_official import write_official

    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def networks(published):
    return load_official_metrics(published.folder, published.files)


@pytest.fixture(scope="module")
def pictures():
    """(3, 512, 640, 3) uint8: smooth, noise, half black."""
    generator = np.random.default_rng(2)
    pictures = generator.integers(0, 256, (3, 512, 640, 3), dtype=np.uint8)
    pictures[0] = np.linspace(0, 255, 640, dtype=np.uint8)[:, None]
    pictures[2, :256] = 0
    return pictures


def test_features_are_those_of_pytorch_fids_own_network(networks, published, pictures):
    import torch

    for picture, features in zip(pictures, networks.features(pictures), strict=True):
        unit = torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = published.inception(unit)[0].flatten().numpy()
        assert expected.std() > 0.01, "random weights that give nothing would agree with anything"
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


def test_clip_score_is_that_of_open_clip_and_its_own_transform(networks, published, pictures):
    import open_clip
    import torch
    from PIL import Image

    model = published.clip
    transform = open_clip.image_transform(224, is_train=False, mean=official.CLIP_MEAN, std=official.CLIP_STD)
    captions = ["A cat on a mat.", "Two dogs, running", "a " * 100]
    found, features = Scorer(networks).score(np.stack(pictures), captions)
    for picture, caption, score in zip(pictures, captions, found, strict=True):
        with torch.no_grad():
            one = model.encode_image(transform(Image.fromarray(picture))[None])[0].double()
            two = model.encode_text(open_clip.tokenize([caption]))[0].double()
        expected = 100 * float(one @ two / (one.norm() * two.norm()))
        assert score == pytest.approx(expected, abs=1e-4)
    assert features.shape == (3, 2048)
    assert networks.variant == "mlperf"


def test_identity_names_files_activation_and_resizes(networks, published):
    files = published.files
    identity = networks.identity
    assert identity["clip_weights_sha256"] == files["clip"].digest
    assert identity["fid_weights_sha256"] == files["inception"].digest
    content = (published.folder / "val2014.npz").read_bytes()
    blob = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()
    assert identity["statistics_git_blob_sha1"] == blob
    assert identity["statistics_sha256"] == hashlib.sha256(content).hexdigest()
    assert identity["clip_activation"] == "QuickGELU"
    assert identity["clip_resize"] == "224 PIL bicubic antialias"
    assert identity["fid_resize"] == "299 bilinear, no antialias, align_corners=False"


def test_other_weights_are_never_scored_as_official(published):
    with pytest.raises(AssetError, match=r"ViT-B-32.pt is not the file that the benchmark scores with") as caught:
        load_official_metrics(published.folder)
    assert caught.value.parts["expected"] == f"sha256 {FILES['clip'].digest}"
    assert caught.value.parts["fix"].startswith(f"rm '{published.folder / 'ViT-B-32.pt'}' && sdxl-engine download-data")


@pytest.mark.parametrize("role", FILES)
def test_each_file_is_checked(published, role):
    folder = published.folder
    wrong = published.files | {role: FILES[role]}
    with pytest.raises(AssetError, match="is not the file") as caught:
        load_official_metrics(folder, wrong)
    assert caught.value.parts["from"] == str(folder / FILES[role].name)


def test_missing_files_are_refused_with_the_command_that_gets_them(tmp_path):
    (tmp_path / "val2014.npz").touch()
    with pytest.raises(UnavailableError) as caught:
        require_files(tmp_path)
    assert caught.value.parts["got"] == "no ViT-B-32.pt, pt_inception-2015-12-05-6726825d.pth"
    assert caught.value.parts["fix"].startswith(
        "sdxl-engine download-data --only metrics; it puts them in build/models/"
    )


def test_the_command_names_the_build_folder_that_the_files_belong_to(tmp_path):
    with pytest.raises(UnavailableError) as caught:
        require_files(tmp_path / "models" / "metrics")
    assert caught.value.parts["fix"] == f"sdxl-engine download-data --only metrics --build-dir '{tmp_path}'"
