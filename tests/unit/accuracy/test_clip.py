"""The CLIP score's shortcuts against the plain evaluation: same values, fewer steps."""

import threading

import numpy as np
import pytest

from sdxl_engine.accuracy.clip import ClipScore, image_transform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 64, "width": 32, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="module")
def clip():
    import torch

    from sdxl_engine.accuracy.causal_clip import CausalClip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalClip(**CONFIG).eval().requires_grad_(requires_grad=False)


def captions(*lengths):
    """Ids (B, 77) of so many tokens each, 63 at the end, and 0 after it."""
    import torch

    ids = torch.randint(1, 60, (len(lengths), 77), generator=torch.Generator().manual_seed(1))
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1], row[length:] = 63, 0
    return ids


@pytest.mark.parametrize("lengths", [(2,), (9, 14, 13), (77, 5), (20, 20)])
@pytest.mark.parametrize("normalize", [False, True])
def test_cropped_text_has_the_embedding_of_the_whole(clip, lengths, normalize):
    import open_clip
    import torch

    ids = captions(*lengths)
    with torch.inference_mode():
        whole = open_clip.CLIP.encode_text(clip, ids, normalize=normalize)
        cropped = clip.encode_text(ids, normalize=normalize)
    assert whole.std() > 0.01
    torch.testing.assert_close(cropped, whole, rtol=0, atol=1e-6 * whole.abs().max().item())


def test_only_the_longest_captions_positions_are_evaluated(clip):
    import torch

    seen = []
    hook = clip.transformer.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0].shape))
    with hook, torch.inference_mode():
        clip.encode_text(captions(9, 14, 13))
    assert seen == [(3, 14, 32)]
    assert clip.positional_embedding.shape == (77, 32), "the model itself stays whole"


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_a_tower_that_cannot_be_cropped_is_refused(change):
    from sdxl_engine.accuracy.causal_clip import CausalClip

    with pytest.raises(ValueError, match="not causal"):
        CausalClip(**CONFIG | {"text_cfg": CONFIG["text_cfg"] | change})


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
