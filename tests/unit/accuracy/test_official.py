"""The variant `mlperf`: full-size networks with seeded random weights, in files as the published ones are laid out."""

import dataclasses
import hashlib

import numpy as np
import pytest

from sdxl_engine.accuracy import official
from sdxl_engine.accuracy.official import load_official_metrics
from sdxl_engine.accuracy.official_files import FILES, require_files
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.errors import AssetError, UnavailableError


def random_inception(torch):
    """pytorch-fid's own constructor, with its download answered by random weights; and those weights."""
    from pytorch_fid import inception

    kept = {}

    def fill(network, *_arguments, **_keywords):
        generator = torch.Generator().manual_seed(7)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                fan = module.weight[0].numel()
                module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.data = torch.randn(module.bias.shape, generator=generator) / 10
        kept.update(network.state_dict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_arguments, **_keywords: {})
        patch.setattr(torch.nn.Module, "load_state_dict", fill)
        reference = inception.InceptionV3([3]).eval()
    return reference, kept


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, files with their digests, reference Inception, reference CLIP)."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("official")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
        inception, weights = random_inception(torch)
    # The archive has the weights of the layers in fp16 and three numbers besides.
    clip = clip.half().float()

    class Archive(torch.nn.Module):
        def forward(self, x):
            return x

    archive = Archive()
    for name, value in clip.state_dict().items():
        *path, leaf = name.split(".")
        parent = archive
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, Archive())
            parent = getattr(parent, part)
        parent.register_buffer(leaf, value.half())
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        archive.register_buffer(name, torch.tensor(value))
    torch.jit.trace(archive, torch.zeros(1), check_trace=False).save(str(folder / FILES["clip"].name))
    torch.save(weights, folder / FILES["inception"].name)
    draws = np.random.default_rng(5).normal(size=(2048,))
    np.savez(folder / FILES["statistics"].name, mu=draws, sigma=np.diag(draws**2))
    files = {role: dataclasses.replace(file, digest=file.found(folder / file.name)) for role, file in FILES.items()}
    return folder, files, inception, clip


@pytest.fixture(scope="module")
def networks(published):
    folder, files, _, _ = published
    return load_official_metrics(folder, files)


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

    reference = published[2]
    for picture, features in zip(pictures, networks.features(pictures), strict=True):
        unit = torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = reference(unit)[0].flatten().numpy()
        assert expected.std() > 0.01, "random weights that give nothing would agree with anything"
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


def test_clip_score_is_that_of_open_clip_and_its_own_transform(networks, published, pictures):
    import open_clip
    import torch
    from PIL import Image

    model = published[3]
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
    folder, files, _, _ = published
    identity = networks.identity
    assert identity["clip_weights_sha256"] == files["clip"].digest
    assert identity["fid_weights_sha256"] == files["inception"].digest
    content = (folder / "val2014.npz").read_bytes()
    blob = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()
    assert identity["statistics_git_blob_sha1"] == blob
    assert identity["clip_activation"] == "QuickGELU"
    assert identity["clip_resize"] == "224 PIL bicubic antialias"
    assert identity["fid_resize"] == "299 bilinear, no antialias, align_corners=False"


def test_other_weights_are_never_scored_as_official(published):
    folder, _, _, _ = published
    with pytest.raises(AssetError, match=r"ViT-B-32.pt is not the file that the benchmark scores with") as caught:
        load_official_metrics(folder)
    assert caught.value.parts["expected"] == f"sha256 {FILES['clip'].digest}"
    assert FILES["clip"].url in caught.value.parts["fix"]


@pytest.mark.parametrize("role", FILES)
def test_each_file_is_checked(published, role):
    folder, files, _, _ = published
    wrong = files | {role: FILES[role]}
    with pytest.raises(AssetError, match="is not the file") as caught:
        load_official_metrics(folder, wrong)
    assert caught.value.parts["from"] == str(folder / FILES[role].name)


def test_missing_files_are_refused_with_the_command_that_gets_them(tmp_path):
    (tmp_path / "val2014.npz").touch()
    with pytest.raises(UnavailableError) as caught:
        require_files(tmp_path)
    assert caught.value.parts["got"] == "no ViT-B-32.pt, pt_inception-2015-12-05-6726825d.pth"
    commands = caught.value.parts["fix"].split(" && ")
    assert [command.split()[0] for command in commands] == ["mkdir", "curl", "curl"]
    assert commands[1].endswith(FILES["clip"].url)


def test_published_digests_are_in_the_published_names():
    assert FILES["clip"].digest in FILES["clip"].url
    assert f"-{FILES['inception'].digest[:8]}.pth" in FILES["inception"].url
    assert len(FILES["statistics"].digest) == 40
    assert FILES["statistics"].algorithm == "blob"
