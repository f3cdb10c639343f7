"""The scorer against plain evaluations, and everything it must refuse."""

import dataclasses
import json
import math

import numpy as np
import pytest

from sdxl_engine.accuracy.collector import Collector
from sdxl_engine.accuracy.ranges import derive, judge
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.errors import AccuracyError


def scored(networks, captions, images, block=32, chunk=20):
    collector = Collector(Scorer(networks), captions, block=block)
    ids = list(captions)
    for start in range(0, len(ids), chunk):
        collector.take(ids[start : start + chunk], images[start : start + chunk])
    collector.finish()
    return collector


def plain_clip_score(model, tokenizer, image, caption, config):
    """One image, one caption, step by step in float64 after the network."""
    import torch
    from PIL import Image

    size = config["vision_cfg"]["image_size"]
    picture = Image.fromarray(image)
    width, height = picture.size
    short = min(width, height)
    picture = picture.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    pixels = (pixels - np.float32(config["mean"])) / np.float32(config["std"])
    ids = tokenizer(caption)["input_ids"]
    ids = ids + [0] * (config["text_cfg"]["context_length"] - len(ids))
    with torch.no_grad():
        one = model.encode_image(torch.from_numpy(pixels.transpose(2, 0, 1))[None])[0].double().numpy()
        two = model.encode_text(torch.tensor([ids]))[0].double().numpy()
    return 100 * (one @ two) / math.sqrt((one @ one) * (two @ two))


def test_clip_agrees_with_a_plain_evaluation_per_image(networks, metrics_folder, captions, images):
    import open_clip
    from safetensors.torch import load_file
    from transformers import CLIPTokenizer

    folder = metrics_folder / "clip"
    config = json.loads((folder / "config.json").read_text())
    arguments = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
    model = open_clip.CLIP(**arguments)
    model.load_state_dict({key: value.float() for key, value in load_file(folder / "model.safetensors").items()})
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    expected = {
        key: plain_clip_score(model.eval(), tokenizer, image, captions[key], config)
        for key, image in zip(captions, images, strict=True)
    }
    collector = scored(networks, captions, images, block=6)
    assert list(collector.tally.per_id) == list(captions)
    assert collector.tally.per_id == pytest.approx(expected, abs=1e-4)
    assert collector.scores().clip == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert np.ptp(list(expected.values())) > 0.1, "the images must score differently for this to show anything"


def test_a_score_below_zero_is_not_clamped(networks, captions, images):
    class Opposite:
        def encode_image(self, pixels):
            return -networks.clip.model.encode_image(pixels)

        def encode_text(self, ids):
            return networks.clip.model.encode_text(ids)

    clip = dataclasses.replace(networks.clip, model=Opposite())
    opposite = scored(dataclasses.replace(networks, clip=clip), captions, images).tally.per_id
    expected = {key: -score for key, score in scored(networks, captions, images).tally.per_id.items()}
    assert opposite == pytest.approx(expected, abs=1e-5)
    assert min(*opposite.values(), *expected.values()) < 0


def test_fid_agrees_with_a_plain_evaluation(networks, captions, images):
    import scipy.linalg

    features = networks.features(images).astype(np.float64)
    mu, sigma = features.mean(axis=0), np.cov(features, rowvar=False)
    true = networks.statistics
    root = scipy.linalg.sqrtm(sigma @ true.sigma).real
    expected = ((mu - true.mu) ** 2).sum() + np.trace(sigma + true.sigma - 2 * root)
    assert scored(networks, captions, images).scores().fid == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("block", "chunk"), [(1, 20), (7, 20), (32, 3)])
def test_blocks_do_not_matter(networks, captions, images, block, chunk):
    one = scored(networks, captions, images)
    other = scored(networks, captions, images, block, chunk)
    assert other.tally.per_id == pytest.approx(one.tally.per_id, abs=1e-4)
    assert other.scores().clip == pytest.approx(one.scores().clip, abs=1e-5)
    assert other.scores().fid == pytest.approx(one.scores().fid, rel=1e-5)


def test_a_caption_is_embedded_once_in_a_block(networks, captions, images):
    tokenised = []

    def tokenise(texts):
        tokenised.extend(texts)
        return networks.clip.tokenise(texts)

    clip = dataclasses.replace(networks.clip, tokenise=tokenise)
    repeated = {key: list(captions.values())[row % 4] for row, key in enumerate(captions)}
    scored(dataclasses.replace(networks, clip=clip), repeated, images, block=20)
    assert sorted(tokenised) == sorted(set(repeated.values()))


def test_what_a_block_scores_does_not_depend_on_earlier_blocks(networks, captions, images):
    texts = list(captions.values())
    long = "a long caption of many words that holds " + texts[11]
    fresh = Scorer(networks).score(images[10:], texts[10:])
    used = Scorer(networks)
    used.score(images[:10], [long, *texts[11:20]])
    for one, other in zip(fresh, used.score(images[10:], texts[10:]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 40, 48, 3), np.float32),
        np.zeros((1, 40, 48, 3), np.uint8),
        np.zeros((2, 3, 40, 48), np.uint8),
        np.zeros((2, 40, 48), np.uint8),
        np.zeros((2, 0, 48, 3), np.uint8),
        np.zeros((2, 48, 40, 3), np.uint8),
    ],
    ids=["dtype", "count", "channels first", "no channels", "empty", "size of earlier images"],
)
def test_wrong_images_are_refused(networks, images, wrong):
    scorer = Scorer(networks)
    scorer.score(images[:1], ["a box"])
    with pytest.raises(AccuracyError, match="cannot be scored") as caught:
        scorer.score(wrong, ["a box", "a circle"])
    assert caught.value.parts["expected"] == "uint8 (2, 40, 48, 3)"


@pytest.mark.parametrize("metric", ["clip", "fid"])
def test_one_nan_makes_the_score_nan_and_the_gate_fail(networks, captions, images, metric):
    import torch

    def broken_preprocess(image):
        pixels = networks.clip.preprocess(image)
        return pixels * math.nan if np.array_equal(image, images[4]) else pixels

    def broken_module(pixels):
        features = networks.features.module(pixels)
        features[-1] = torch.nan
        return features

    good = scored(networks, captions, images).scores()
    if metric == "clip":
        clip = dataclasses.replace(networks.clip, preprocess=broken_preprocess)
        broken = dataclasses.replace(networks, clip=clip)
    else:
        features = dataclasses.replace(networks.features, module=broken_module)
        broken = dataclasses.replace(networks, features=features)
    scores = scored(broken, captions, images).scores()
    other = "fid" if metric == "clip" else "clip"
    assert math.isnan(getattr(scores, metric))
    assert getattr(scores, other) == pytest.approx(getattr(good, other))
    ranges = derive("shapes-20", good.clip, good.fid, 100, 100, 20, "this test")
    verdict = judge(scores, ranges)
    assert verdict.passed is False
    assert f"[FAILED] {metric.upper()}_SCORE: nan" in verdict.line
