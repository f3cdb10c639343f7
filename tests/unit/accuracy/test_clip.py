"""The CLIP score's shortcuts against the plain evaluation: same values, fewer steps."""

import copy
import threading

import numpy as np
import pytest

from sdxl_engine.accuracy.clip import ClipScore, image_transform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 64, "width": 32, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="module")
def clip():
    """In float64, where one function evaluated in two ways differs by no more than 1e-12."""
    import torch

    from sdxl_engine.accuracy.lean_clip import LeanClip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LeanClip(**CONFIG).eval().requires_grad_(requires_grad=False).double()


def captions(*lengths):
    """Ids (B, 77) of so many tokens each, 63 at the end, and 0 after it."""
    import torch

    ids = torch.randint(1, 60, (len(lengths), 77), generator=torch.Generator().manual_seed(1))
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1], row[length:] = 63, 0
    return ids


def assert_same(found, expected):
    import torch

    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [(2,), (9, 14, 13), (77, 5), (20, 20), range(2, 77)], ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_texts_have_open_clips_embeddings(clip, lengths, normalize):
    import open_clip
    import torch

    ids = captions(*lengths)
    with torch.inference_mode():
        assert_same(clip.encode_text(ids, normalize), open_clip.CLIP.encode_text(clip, ids, normalize=normalize))


@pytest.mark.parametrize("normalize", [False, True])
def test_images_have_open_clips_embeddings(clip, normalize):
    import open_clip
    import torch

    pixels = torch.randn((5, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        assert_same(clip.encode_image(pixels, normalize), open_clip.CLIP.encode_image(clip, pixels, normalize))


def tokens(tower):
    """Filled, at each call of the tower, with the shapes that the MLPs of its last two blocks are given."""
    seen = []
    for block in list(tower.resblocks)[-2:]:
        # The normalisation before the MLP is a module that is called; of the MLP only the weights are used.
        block.ln_2.register_forward_pre_hook(lambda _module, arguments: seen.append(tuple(arguments[0].shape)))
    return seen


def test_only_what_is_read_is_evaluated(clip):
    """No token after a caption's end, and in the last block the tokens that the embeddings are read at."""
    import torch

    watched = copy.deepcopy(clip)
    texts, images = tokens(watched.transformer), tokens(watched.visual.transformer)
    with torch.inference_mode():
        watched.encode_text(captions(9, 14, 13))
        watched.encode_image(torch.zeros((5, 3, 32, 32), dtype=torch.float64))
    assert texts == [(1, 9 + 14 + 13, 32), (1, 3, 32)]
    assert images == [(5, 2 * 2 + 1, 32), (5, 1, 32)]


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("text_cfg", {"no_causal_mask": True}, "not causal"),
        ("text_cfg", {"pool_type": "last"}, "not causal"),
        ("vision_cfg", {"pool_type": "avg"}, "first token"),
        ("vision_cfg", {"attentional_pool": True}, "first token"),
        ("vision_cfg", {"layers": [1, 1, 1, 1], "width": 32}, "no vision transformer"),
        ("vision_cfg", {"block_type": "custom"}, "other blocks"),
        ("text_cfg", {"ls_init_value": 0.1}, "other blocks"),
    ],
)
def test_towers_of_which_more_is_read_are_refused(part, change, reason):
    from sdxl_engine.accuracy.lean_clip import LeanClip

    with pytest.raises(ValueError, match=reason):
        LeanClip(**CONFIG | {part: CONFIG[part] | change})


@pytest.mark.parametrize("shape", [(256, 256), (300, 225), (224, 400), (100, 130)])
def test_image_transform_is_torchvisions_to_the_last_bit(shape):
    import torch
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    steps = (Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize(MEAN, STD))
    found = image_transform(224, MEAN, STD)(image)
    torch.testing.assert_close(found, Compose(steps)(Image.fromarray(image)), rtol=0, atol=0)


def test_threads_keep_the_images_in_order(networks, images):
    import torch

    expected = torch.stack([networks.clip.preprocess(image) for image in images])
    before = threading.active_count()
    for _ in range(5):
        assert torch.equal(ClipScore(networks.clip).pixels(images), expected)
    assert threading.active_count() == before
