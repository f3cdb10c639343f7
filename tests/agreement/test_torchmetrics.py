"""The variant `torchmetrics` gives what torchmetrics' own classes give on the same weights."""

from types import SimpleNamespace

import numpy as np
import pytest

from sdxl_engine.accuracy.clip import ClipScore
from sdxl_engine.accuracy.fid import Moments, frechet_distance
from sdxl_engine.accuracy.networks import load_shapes_metrics
from sdxl_engine.accuracy.torchmetrics_variant import as_torchmetrics
from sdxl_engine.shapes.bundle import BUNDLE, METRICS

pytestmark = pytest.mark.usefixtures("photographs")


@pytest.fixture(scope="module", autouse=True)
def libraries():
    pytest.importorskip("torchmetrics", reason="needs torchmetrics")
    pytest.importorskip("torch_fidelity", reason="needs torch-fidelity")


@pytest.fixture(scope="module")
def images():
    """Eight of 1024x1024: two rendered, three photographic, two of noise, one extreme."""
    from pictures import picture

    return np.stack([picture(5, index) for index in (0, 1, 5, 6, 20, 27, 28, 30)])


@pytest.fixture(scope="module")
def variant(networks):
    return as_torchmetrics(networks)


def channels_first(images):
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2)


def clip_model_and_processor(official):
    """What `CLIPScore` calls, from transformers but for the model: 1.9.0 cannot read the output of transformers 5's."""
    import open_clip
    import torch
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

    class Model(torch.nn.Module):
        config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=77))

        @torch.no_grad()
        def get_image_features(self, pixels):
            return official.clip.encode_image(pixels)

        @torch.no_grad()
        def get_text_features(self, ids, _attention_mask):
            # The marker that fills short captions up is the end marker, whose first place the tower looks for.
            return official.clip.encode_text(torch.nn.functional.pad(ids, (0, 77 - ids.shape[1])))

    pairs = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): key for token, key in pairs.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=sorted(pairs.bpe_ranks, key=pairs.bpe_ranks.get))
    return Model(), CLIPProcessor(CLIPImageProcessor(), tokenizer)


def test_clip_score(official, variant, images):
    from pictures import CAPTIONS
    from torchmetrics.multimodal import CLIPScore

    # The last two captions are too long: there torchmetrics cuts the end marker off.
    captions = CAPTIONS[: len(images)]
    scores = ClipScore(variant.clip)(images, captions)
    assert (scores < 0).any()
    assert (scores > 0).any()
    metric = CLIPScore(lambda: clip_model_and_processor(official))
    for image, caption, score in zip(channels_first(images), captions, scores, strict=True):
        metric.reset()
        metric.update(image, caption)
        assert float(metric.score) == pytest.approx(score, abs=5e-5)
        assert float(metric.compute()) == pytest.approx(max(score, 0), abs=5e-5)


def test_features(official, variant, images):
    from torchmetrics.image.fid import FrechetInceptionDistance

    weights = official.folder / official.files["inception"].name
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights))
    expected = metric.inception(channels_first(images)).numpy()
    assert expected.shape == (len(images), 2048)
    assert expected.std(axis=0).mean() > 0.01
    np.testing.assert_allclose(variant.features(images), expected, atol=1e-5 * expected.max())


def test_fid_from_true_statistics():
    """On the embedded networks, whose 64 dimensions 80 images fill; the statistics are put in as torchmetrics sums."""
    import torch
    from pictures import picture
    from torchmetrics.image.fid import FrechetInceptionDistance

    networks = load_shapes_metrics(BUNDLE / METRICS)
    variant = as_torchmetrics(networks)
    features = np.concatenate([variant.features(picture(6, index)[None, ::4, ::4]) for index in range(80)])
    moments = Moments(features.shape[1])
    moments.update(features)
    true = variant.statistics

    class Features(torch.nn.Module):
        num_features = features.shape[1]

        def forward(self, rows):
            return torch.from_numpy(features)[rows[:, 0, 0, 0].long()]

    metric = FrechetInceptionDistance(feature=Features())
    count = 5000
    metric.real_features_num_samples += count
    metric.real_features_sum += torch.from_numpy(true.mu * count)
    metric.real_features_cov_sum += torch.from_numpy(true.sigma * (count - 1) + count * np.outer(true.mu, true.mu))
    metric.update(torch.arange(80, dtype=torch.uint8)[:, None, None, None], real=False)
    fid = frechet_distance(moments.mean, moments.covariance, true.mu, true.sigma)
    assert fid > 1
    assert float(metric.compute()) == pytest.approx(fid, rel=1e-5)


def test_identity_says_what_differs(networks, variant):
    import transformers

    assert variant.variant == variant.identity["variant"] == "torchmetrics"
    assert variant.identity["weights_and_statistics_of"] == "mlperf"
    assert variant.identity["clip_weights_sha256"] == networks.identity["clip_weights_sha256"]
    resize = f"224 transformers {transformers.__version__} CLIPImageProcessor, torchvision"
    assert variant.identity["clip_resize"] == variant.clip.identity["clip_resize"] == resize
    resize = "299 bilinear, antialias, align_corners=False, (x - 128) / 128"
    assert variant.identity["fid_resize"] == variant.features.identity["fid_resize"] == resize


def test_images_that_need_no_resize_differ_by_rounding_only(networks, variant):
    from pictures import picture

    images = picture(5, 5)[None, :224, :224]
    captions = ["a photograph"]
    expected = ClipScore(networks.clip)(images, captions)
    assert ClipScore(variant.clip)(images, captions) == pytest.approx(expected, abs=1e-5)
