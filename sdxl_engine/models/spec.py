"""The five networks of SDXL as data: names, inputs, outputs, shapes, read from a checkpoint's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS = ("clip1", "clip2", "unet", "shallow_unet", "vae")
CACHED_FEATURES = ("down.0.res_samples.0", "down.0.res_samples.1", "up.1.sample")
"""What the deep UNet hands to the shallow one; the names are NVIDIA's (MLPerf Inference v4.0, open division)."""

ONNX_FOLDERS = {
    "clip1": "clip1",
    "clip2": "clip2",
    "unet": "unetxl/deep",
    "shallow_unet": "unetxl/shallow",
    "vae": "vae",
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. Its first axis is the batch unless `batched` is false.

    Args:
        shape: Without the batch axis.
        dtype: numpy name.
        batched: Whether the batch axis comes first.
    """

    shape: Shape
    dtype: str = "float32"
    batched: bool = True

    def at(self, rows: int) -> Shape:
        """Full shape for a batch of `rows`."""
        return (rows, *self.shape) if self.batched else self.shape


@dataclass(frozen=True)
class NetworkSpec:
    """One network's interface: tensor names to specs, in the order of its signature.

    Args:
        inputs: What it reads.
        outputs: What it writes.
        doubled: Whether it runs on 2B rows for B images (classifier-free guidance, negative rows first).
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    doubled: bool = True

    def rows(self, images: int) -> int:
        """Rows of the batch axis for so many images."""
        return 2 * images if self.doubled else images


@dataclass(frozen=True)
class ModelSpec:
    """The sizes of one SDXL checkpoint.

    Args:
        tokens: Length of a tokenised prompt (77).
        text_widths: Hidden widths of the two text encoders (768 and 1280).
        pooled_width: Width of the second encoder's projection (1280).
        latent_channels: 4.
        latent_side: Latents per side (128).
        image_side: Pixels per side (1024).
        unet_channels: Channels of the UNet's levels (320, 640, 1280).
        vae_scaling_factor: What latents are divided by before the decoder (0.13025).
        upcast_decoder: Whether the decoder leaves float16's range, so that it must not run in it (SDXL's own does;
            `force_upcast` of diffusers' AutoencoderKL).
    """

    tokens: int
    text_widths: tuple[int, int]
    pooled_width: int
    latent_channels: int
    latent_side: int
    image_side: int
    unet_channels: tuple[int, ...]
    vae_scaling_factor: float
    upcast_decoder: bool

    @property
    def time_ids(self) -> tuple[float, ...]:
        """SDXL's micro-conditioning: original size, crop corner, target size."""
        side = float(self.image_side)
        return (side, side, 0.0, 0.0, side, side)

    @property
    def networks(self) -> dict[str, NetworkSpec]:
        """The interface of each of `NETWORKS`."""
        side = self.latent_side
        first, second = self.text_widths
        ids = {"input_ids": TensorSpec((self.tokens,), "int32")}
        latent = TensorSpec((self.latent_channels, side, side))
        narrow = TensorSpec((self.unet_channels[0], side, side))
        features = dict(
            zip(
                CACHED_FEATURES,
                (narrow, narrow, TensorSpec((self.unet_channels[1], side, side))),
                strict=True,
            )
        )
        conditioning = {
            "text_embeds": TensorSpec((self.pooled_width,)),
            "time_ids": TensorSpec((6,)),
        }
        step = {"sample": latent, "timestep": TensorSpec((1,), batched=False)}
        context = {"encoder_hidden_states": TensorSpec((self.tokens, first + second))}
        pixels = TensorSpec((3, self.image_side, self.image_side))
        return {
            "clip1": NetworkSpec(
                ids,
                {
                    "text_embeddings": TensorSpec((self.tokens, first)),
                    "hidden_states": TensorSpec((self.tokens, first)),
                },
            ),
            "clip2": NetworkSpec(
                ids,
                {
                    "text_embeddings": TensorSpec((self.pooled_width,)),
                    "hidden_states": TensorSpec((self.tokens, second)),
                },
            ),
            "unet": NetworkSpec(step | context | conditioning, {"latent": latent} | features),
            "shallow_unet": NetworkSpec(step | conditioning | features, {"latent": latent}),
            "vae": NetworkSpec({"latent": latent}, {"images": pixels}, doubled=False),
        }


def read_spec(checkpoint: Path) -> ModelSpec:
    """Read the sizes from a diffusers-layout checkpoint.

    Raises:
        AssetError: a configuration file is missing or is not SDXL's.
    """

    def config(part: str) -> dict[str, Any]:
        loaded: dict[str, Any] = read_json(checkpoint / part / "config.json", f"the configuration of {part}")
        return loaded

    text, text_2, unet, vae = (config(part) for part in ("text_encoder", "text_encoder_2", "unet", "vae"))
    blocks = unet.get("down_block_types")
    if unet.get("addition_embed_type") != "text_time" or list(blocks or ()) != _SDXL_BLOCKS:
        raise AssetError(
            "this checkpoint is not a Stable Diffusion XL",
            got=f"addition_embed_type {unet.get('addition_embed_type')!r}, down_block_types {blocks}",
            expected=f"addition_embed_type 'text_time', down_block_types {_SDXL_BLOCKS}",
            source=checkpoint / "unet" / "config.json",
        )
    return ModelSpec(
        tokens=text["max_position_embeddings"],
        text_widths=(text["hidden_size"], text_2["hidden_size"]),
        pooled_width=text_2["projection_dim"],
        latent_channels=unet["in_channels"],
        latent_side=unet["sample_size"],
        image_side=unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1),
        unet_channels=tuple(unet["block_out_channels"]),
        vae_scaling_factor=vae["scaling_factor"],
        upcast_decoder=vae.get("force_upcast", True),
    )


_SDXL_BLOCKS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
