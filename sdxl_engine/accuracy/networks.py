"""The networks a metric variant scores with, and the identity that says which they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sdxl_engine.accuracy.clip import image_transform
from sdxl_engine.accuracy.fid import network_input
from sdxl_engine.accuracy.loading import load_statistics, load_weights, read_config, tree_sha256
from sdxl_engine.accuracy.precision import device_identity, full_float32, usable_device
from sdxl_engine.errors import AssetError, UnavailableError
from sdxl_engine.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sdxl_engine.accuracy.fid import Statistics


GROUP = {"cpu": 8, "cuda": 64}
"""Images that the feature network takes at once. On a CPU what its layers pass on then stays in the cache and in
memory that was used before: Inception takes 60 to 66 ms an image in groups of 4 to 16, 67 to 69 in groups of 2 or 32
(2 cores of an AMD EPYC, torch 2.14.1, 2026-11-28). On a GPU it only bounds the memory: a run's blocks are 32."""

CLIP_ARGUMENTS = ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")
"""Of `open_clip.CLIP`, in a bundle's `clip/config.json`."""


class ClipModel(Protocol):
    """The two towers, as `open_clip.CLIP` has them."""

    def encode_image(self, image: torch.Tensor, /) -> torch.Tensor:
        """Pixels (B, 3, S, S) float32 to embeddings (B, E) float32, not normalised."""

    def encode_text(self, text: torch.Tensor, /) -> torch.Tensor:
        """Ids (B, L) int64 to embeddings (B, E) float32, not normalised."""


@dataclass(frozen=True)
class ClipNetwork:
    """What the CLIP score is computed with.

    Args:
        model: float32, in evaluation mode, on `device`.
        preprocess: One image (H, W, 3) uint8 RGB to the model's input (3, S, S) float32.
        tokenise: B captions to (B, L) int64.
        identity: sha256 of each file, activation class, resize.
        device: Where the model runs; images and captions come from the CPU's memory.
    """

    model: ClipModel
    preprocess: Callable[[NDArray[np.uint8]], torch.Tensor]
    tokenise: Callable[[Sequence[str]], torch.Tensor]
    identity: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class FidNetwork:
    """What FID's features are computed with.

    Args:
        module: (B, 3, S, S) float32 in [-1, 1] to (B, D) or (B, D, 1, 1) float32; in evaluation mode, on `device`.
        image_size: S, pixels.
        dims: D.
        identity: sha256 of each file, resize.
        device: Where the module runs; images come from the CPU's memory and features go there.
    """

    module: Callable[[torch.Tensor], torch.Tensor]
    image_size: int
    dims: int
    identity: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """What the module takes, (B, 3, S, S) float32 on `device`, of images (B, H, W, 3) uint8 RGB, 0 to 255."""
        return network_input(images, self.image_size, self.device)

    @property
    def group(self) -> int:
        """See `GROUP`."""
        return GROUP[self.device.partition(":")[0]]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (B, D) of images (B, H, W, 3) uint8 RGB, 0 to 255; B may be any number.

        Raises:
            AccuracyError: see `full_float32`.
        """
        import torch

        with torch.inference_mode(), full_float32(self.device):
            parts = [
                self.module(self.pixels(images[start : start + self.group])).cpu()
                for start in range(0, len(images), self.group)
            ]
            array: NDArray[np.float32] = torch.cat(parts).reshape(len(images), self.dims).numpy()
        return array


@dataclass(frozen=True)
class Metric:
    """What a metric variant is, without its networks: enough to name scores and to make them from features.

    Args:
        variant: `mlperf`, `shapes` or `torchmetrics`.
        statistics: Of the true images' features, which FID measures the distance to.
        identity: What the networks were; a score is only worth as much as what it was computed with.
    """

    variant: str
    statistics: Statistics
    identity: dict[str, str]


@dataclass(frozen=True)
class MetricNetworks:
    """One metric variant: scores of different variants do not compare.

    Args:
        variant: `mlperf` or `shapes`.
        clip: For the CLIP score.
        features: For FID.
        statistics: Of the true images' features, which FID measures the distance to.
        identity: Of all of them together; a score is only worth as much as what it was computed with.
    """

    variant: str
    clip: ClipNetwork
    features: FidNetwork
    statistics: Statistics
    identity: dict[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """All but the networks."""
        return Metric(self.variant, self.statistics, self.identity)


def load_shapes_metrics(folder: Path, device: str = "cpu") -> MetricNetworks:
    """Load the embedded model's metrics.

    Args:
        folder: With `clip/`, `features/` and `statistics.npz`.
        device: Where the networks run; see `usable_device`.

    Raises:
        AssetError: a file is missing or damaged, or does not fit the others.
        UnavailableError: a library of the extra `metrics` is not installed, or there is no such GPU.
        UsageError: there is no such device at all.
    """
    clip = load_clip_network(folder, device)
    features = load_fid_network(folder, device)
    statistics = load_statistics(folder / "statistics.npz", features.dims)
    identity = {
        "variant": "shapes",
        "statistics_sha256": sha256(folder / "statistics.npz"),
        "precision": "fp32",
    }
    identity |= device_identity(device) | clip.identity | features.identity
    return MetricNetworks("shapes", clip, features, statistics, identity)


def load_clip_network(folder: Path, device: str = "cpu") -> ClipNetwork:
    """Load `clip/` of a metrics folder.

    Raises:
        AssetError: a file is missing or damaged, does not fit the others, or the activation is not QuickGELU.
        UnavailableError: a library of the extra `metrics` is not installed, or there is no such GPU.
        UsageError: there is no such device at all.
    """
    try:
        import torch
        import torchvision  # noqa: F401  image_transform needs it

        from sdxl_engine.accuracy.lean_clip import LeanClip
    except ModuleNotFoundError as error:
        raise library_missing(error, "the CLIP score") from None
    place = usable_device(device)
    folder = folder / "clip"
    path = folder / "config.json"
    what = "the CLIP metric's configuration"
    config = read_config(path, what, (*CLIP_ARGUMENTS, "mean", "std"))
    try:
        # The weights drawn here are overwritten; a caller's own random numbers must not move for them.
        with torch.random.fork_rng(devices=[]):
            model = LeanClip(**{key: config[key] for key in CLIP_ARGUMENTS})
        transform = image_transform(config["vision_cfg"]["image_size"], config["mean"], config["std"])
        context_length = int(config["text_cfg"]["context_length"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AssetError(f"{what} builds no network", got=repr(error), source=path) from None
    check_quick_gelu(model, path)
    load_weights(model, folder / "model.safetensors")
    identity = {
        "clip_weights_sha256": sha256(folder / "model.safetensors"),
        "clip_config_sha256": sha256(path),
        "clip_tokenizer_sha256": tree_sha256(folder / "tokenizer"),
        "clip_activation": "QuickGELU",
        "clip_resize": f"{config['vision_cfg']['image_size']} PIL bicubic antialias",
    }
    tokenise = _load_tokenizer(folder / "tokenizer", context_length, model.vocab_size)
    return ClipNetwork(model.to(place), transform, tokenise, identity, device)


def library_missing(error: ModuleNotFoundError, what: str) -> UnavailableError:
    """The error for a library of the extra `metrics` that `what` needs."""
    return UnavailableError(
        f"{what} needs a library that is not installed",
        got=f"no module {error.name!r}",
        expected="the libraries of the extra `metrics`",
        fix="pip install 'pytest-sdxl[metrics]'",
    )


def check_quick_gelu(model: Any, path: Path) -> None:
    """Look at the layers themselves: open_clip builds plain GELU with at most a warning, and scores differ.

    See https://github.com/mlfoundations/open_clip/issues/771.

    Args:
        model: An `open_clip.CLIP`.
        path: Where it came from, for the message.

    Raises:
        AssetError: a block of either tower has another activation.
    """
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    found = {type(block.mlp.gelu).__name__ for block in blocks}
    if found != {"QuickGELU"}:
        raise AssetError(
            "the CLIP metric has another activation than the reference's",
            got=", ".join(sorted(found)),
            expected="QuickGELU in every block of both towers",
            source=path,
            fix='"quick_gelu": true',
        )


def _load_tokenizer(folder: Path, context_length: int, vocab_size: int) -> Callable[[Sequence[str]], torch.Tensor]:
    import torch
    from transformers import CLIPTokenizer

    # from_pretrained would take a folder that is not there for a name to download.
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise AssetError("the CLIP metric's tokenizer is incomplete", got=f"no {name}", source=folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id
    if end is None or end != len(tokenizer) - 1 or end >= vocab_size:
        raise AssetError(
            "the CLIP metric's tokenizer does not fit its text tower",
            got=f"end of text {end} of {len(tokenizer)} ids",
            expected=f"the highest id, below {vocab_size}: the tower pools where the id is highest",
            source=folder,
        )

    def tokenise(captions: Sequence[str]) -> torch.Tensor:
        rows = tokenizer(list(captions), truncation=True, max_length=context_length)["input_ids"]
        ids = torch.zeros(len(rows), context_length, dtype=torch.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = torch.tensor(row)
        return ids

    return tokenise


def load_fid_network(folder: Path, device: str = "cpu") -> FidNetwork:
    """Load `features/` of a metrics folder.

    Raises:
        AssetError: a file is missing or damaged, or does not fit the others.
        UnavailableError: there is no such GPU.
        UsageError: there is no such device at all.
    """
    import torch

    from sdxl_engine.accuracy.feature_network import FeatureNetwork

    place = usable_device(device)
    folder = folder / "features"
    path = folder / "config.json"
    what = "the feature network's configuration"
    config = read_config(path, what, ("image_size", "channels", "dims"))
    try:
        with torch.random.fork_rng(devices=[]):
            module = FeatureNetwork(tuple(config["channels"]), config["dims"])
    except (RuntimeError, TypeError, ValueError) as error:
        raise AssetError(f"{what} builds no network", got=repr(error), source=path) from None
    load_weights(module, folder / "model.safetensors")
    identity = {
        "fid_weights_sha256": sha256(folder / "model.safetensors"),
        "fid_config_sha256": sha256(path),
        "fid_resize": f"{config['image_size']} bilinear, no antialias, align_corners=False",
    }
    return FidNetwork(module.to(place), config["image_size"], config["dims"], identity, device)
