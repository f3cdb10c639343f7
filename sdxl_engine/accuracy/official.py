"""The metric variant `mlperf`: the networks and statistics that MLPerf's own scorer uses, checked byte for byte.

The reference (`text_to_image/tools/accuracy_coco.py`) scores with open_clip's ViT-B/32 of OpenAI and with the
Inception of pytorch-fid, against `val2014.npz`. Their files come from outside this package, so nothing is
taken for them but the files themselves (`official_files.py`), each compared with its published digest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdxl_engine.accuracy.clip import image_transform
from sdxl_engine.accuracy.fid import convolution_layout
from sdxl_engine.accuracy.loading import load_statistics
from sdxl_engine.accuracy.networks import (
    ClipNetwork,
    FidNetwork,
    MetricNetworks,
    check_quick_gelu,
    library_missing,
)
from sdxl_engine.accuracy.official_files import FILES, checked, require_files
from sdxl_engine.accuracy.precision import device_identity, usable_device
from sdxl_engine.accuracy.ranges import OFFICIAL
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sdxl_engine.accuracy.lean_clip import LeanClip
    from sdxl_engine.assets.manifest import Asset

CLIP_MODEL = "ViT-B-32-quickgelu"
"""open_clip's name for the architecture; its plain `ViT-B-32` has GELU since version 2.29."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIDE = 224
INCEPTION_SIDE = 299
INCEPTION_DIMS = 2048


def load_official_metrics(folder: Path, files: Mapping[str, Asset] = FILES, device: str = "cpu") -> MetricNetworks:
    """Load the variant `mlperf`.

    Args:
        folder: With the three files of `files`.
        files: Their names and digests; the published ones make the score official.
        device: Where the networks run; see `usable_device`.

    Raises:
        UnavailableError: a file is missing, a library of the extra `metrics` is not installed, or there is no such
            GPU.
        UsageError: there is no such device at all.
        AssetError: a file is not the published one.
    """
    require_files(folder, files)
    digests = {role: checked(folder / file.name, file) for role, file in files.items()}
    try:
        clip = _load_clip(folder / files["clip"].name, device)
        features = _load_inception(folder / files["inception"].name, device)
    except ModuleNotFoundError as error:
        raise library_missing(error, "the official score") from None
    statistics = load_statistics(folder / files["statistics"].name, INCEPTION_DIMS)
    identity = {
        "variant": OFFICIAL.variant,
        "precision": "fp32",
        "clip_weights_sha256": digests["clip"],
        "fid_weights_sha256": digests["inception"],
        "statistics_git_blob_sha1": digests["statistics"],
        "statistics_sha256": sha256(folder / files["statistics"].name),
    }
    identity |= device_identity(device) | clip.identity | features.identity
    return MetricNetworks(OFFICIAL.variant, clip, features, statistics, identity)


def _load_clip(path: Path, device: str) -> ClipNetwork:
    """ViT-B/32 with the weights of OpenAI's TorchScript archive, fp16 there, as float32."""
    import torch

    model = clip_model(device)
    check_quick_gelu(model, path)
    # Onto the device at once, where 0.3 GB need not pass through the host's memory together.
    state = torch.jit.load(str(path), map_location=device).state_dict()  # type: ignore[no-untyped-call]
    # The archive also holds three numbers that describe the architecture.
    described = ("input_resolution", "context_length", "vocab_size")
    model.load_state_dict({name: value for name, value in state.items() if name not in described})
    return clip_network(model, device)


def _load_inception(path: Path, device: str) -> FidNetwork:
    """pytorch-fid's Inception up to its last pooling, with the weights at `path` in place of a download."""
    import torch

    # The file's tensors become the network's, one and the same memory.
    network = inception_model("meta")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return inception_network(network, device)


def clip_model(device: str = "cpu") -> LeanClip:
    """ViT-B/32 without its weights, made where it is to run: 0.6 GB that a GPU's host need not hold.

    Args:
        device: See `usable_device`.
    """
    import open_clip
    import torch

    from sdxl_engine.accuracy.lean_clip import LeanClip

    place = usable_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        return LeanClip(**open_clip.get_model_config(CLIP_MODEL))


def clip_network(model: LeanClip, device: str = "cpu") -> ClipNetwork:
    """What the CLIP score is computed with.

    Args:
        model: A `clip_model` with weights; moved to `device`.
        device: See `usable_device`.
    """
    import open_clip
    import PIL

    model.eval().requires_grad_(requires_grad=False).to(usable_device(device))
    identity = {
        "clip_model": CLIP_MODEL,
        "clip_activation": "QuickGELU",
        "clip_resize": f"{CLIP_SIDE} PIL bicubic antialias",
        "open_clip": str(open_clip.__version__),
        "pillow": str(PIL.__version__),
    }
    transform = image_transform(CLIP_SIDE, CLIP_MEAN, CLIP_STD)
    # The tokenizer of the package itself: byte pairs of `bpe_simple_vocab_16e6`, 77 ids.
    return ClipNetwork(model, transform, lambda captions: open_clip.tokenize(list(captions)), identity, device)


def inception_model(device: str = "cpu") -> Any:
    """The Inception whose weights pytorch-fid publishes, without them: TensorFlow's of 2015.

    It pools otherwise than torchvision's, whose layers have the same names.

    Args:
        device: Where it is made; `meta` for one whose parameters are to be replaced.
    """
    import torch
    from pytorch_fid import inception as blocks
    from torchvision.models import inception_v3

    with torch.random.fork_rng(devices=[]), torch.device(device):
        network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
        network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
        network.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
        network.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
        network.Mixed_7b = blocks.FIDInceptionE_1(1280)
        network.Mixed_7c = blocks.FIDInceptionE_2(2048)
    return network


def inception_network(network: Any, device: str = "cpu") -> FidNetwork:
    """What FID's features are computed with.

    Args:
        network: An `inception_model` with weights; changed for speed and moved to `device`.
        device: See `usable_device`.
    """
    import torch

    from sdxl_engine.accuracy.folding import fold_batch_norms

    network.eval().requires_grad_(requires_grad=False)
    # What comes after the pooling classifies; FID compares what comes out of it.
    network.dropout, network.fc = torch.nn.Identity(), torch.nn.Identity()
    fold_batch_norms(network)
    place = usable_device(device)
    network.to(place, memory_format=convolution_layout(device))
    identity = {
        "fid_model": "pytorch-fid Inception, pool3",
        "fid_resize": f"{INCEPTION_SIDE} bilinear, no antialias, align_corners=False",
    }
    return FidNetwork(network, INCEPTION_SIDE, INCEPTION_DIMS, identity, device)
