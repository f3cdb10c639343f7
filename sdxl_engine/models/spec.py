"""The five networks of SDXL as data: names, inputs, outputs, shapes, read from a checkpoint's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.errors import AssetError
from sdxl_engine.models.part_config import PARTS, part_config

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
        AssetError: a configuration file is missing or is not that of SDXL base; the message says what it is.
    """
    text, text_2, unet, vae = (part_config(checkpoint, part) for part in PARTS)
    blocks = unet.get("down_block_types")
    if unet.get("addition_embed_type") != "text_time" or list(blocks or ()) != _SDXL_BLOCKS:
        raise AssetError(
            "this checkpoint is not a Stable Diffusion XL",
            got=f"addition_embed_type {unet.get('addition_embed_type')!r}, down_block_types {blocks}",
            expected=f"addition_embed_type 'text_time', down_block_types {_SDXL_BLOCKS}",
            source=checkpoint / "unet" / "config.json",
        )
    try:
        spec = ModelSpec(
            tokens=text["max_position_embeddings"],
            text_widths=(text["hidden_size"], text_2["hidden_size"]),
            pooled_width=text_2["projection_dim"],
            latent_channels=vae["latent_channels"],
            latent_side=unet["sample_size"],
            image_side=unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1),
            unet_channels=tuple(unet["block_out_channels"]),
            vae_scaling_factor=vae["scaling_factor"],
            upcast_decoder=vae.get("force_upcast", True),
        )
        pooled = unet["projection_class_embeddings_input_dim"] - len(spec.time_ids) * unet["addition_time_embed_dim"]
        fits = {
            "channels of a latent": (unet["in_channels"], spec.latent_channels),
            "width of both text encoders": (unet["cross_attention_dim"], sum(spec.text_widths)),
            "width of text_encoder_2's projection": (pooled, spec.pooled_width),
        }
    except KeyError as error:
        raise AssetError("a configuration lacks a value", got=f"no {error}", source=checkpoint) from None
    for what, (taken, given) in fits.items():
        if taken != given:
            raise AssetError(
                "the networks of this checkpoint do not fit together",
                got=f"{what}: {given}",
                expected=f"{taken}, by the UNet's configuration",
                source=checkpoint,
                fix="take all networks from one SDXL base checkpoint; one for inpainting or editing is another model",
            )
    return spec


_SDXL_BLOCKS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
