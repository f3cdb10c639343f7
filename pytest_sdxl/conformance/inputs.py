"""The tensors of a case. All come from the model's own files, its captions and its initial latent; none is random."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pytest_sdxl.conformance.cases import PROMPTS, Case
from sdxl_engine.assets.captions import read_captions
from sdxl_engine.assets.tokens import TokenTable, tokenise
from sdxl_engine.models.spec import CACHED_FEATURES, read_spec

if TYPE_CHECKING:
    from pytest_sdxl.conformance.reference import Reference
    from pytest_sdxl.conformance.running import Tensors
    from sdxl_engine.models.source import ModelSource

MOST_CAPTIONS = 64
"""Images from the 65th on have the captions of the first ones again; their samples are shifted further."""


class Inputs:
    """Makes the inputs of a network as the pipeline would: captions, and samples on their way through the loop.

    Args:
        model: Its captions, tokenizers and sizes.
        reference: Draws the image whose samples are taken.
    """

    def __init__(self, model: ModelSource, reference: Reference) -> None:
        self._model, self._reference = model, reference
        self._spec = read_spec(model.checkpoint)

    def of(self, case: Case) -> Tensors:
        """Inputs by name, on the CPU, in the dtypes of the model's specification (float32, int32)."""
        if case.network in ("clip1", "clip2"):
            return {"input_ids": self._ids(case.network, case)}
        if case.network == "vae":
            return {"latent": self._shifted(self._recorded("vae", 0)["latent"], case.images)}
        assert case.step is not None
        recorded = self._recorded("step", case.step)
        wanted = self._spec.networks[case.network].inputs
        tensors = {
            name: self._shifted(recorded[name], case.images) for name in ("sample", *CACHED_FEATURES) if name in wanted
        }
        text = self._text(case.images)
        tensors |= {name: text[name] for name in text if name in wanted}
        tensors["time_ids"] = torch.tensor(self._spec.time_ids).repeat(2 * len(case.images), 1)
        tensors["timestep"] = recorded["timestep"] if case.timestep is None else torch.tensor([case.timestep])
        return tensors

    def _ids(self, network: str, case: Case) -> Tensor:
        """Negative rows first."""
        texts = self._captions if case.prompt is None else self._odd_prompts
        rows = [list(PROMPTS).index(case.prompt)] if case.prompt else [row % len(texts.first) for row in case.images]
        prompts, negative = {
            "clip1": (texts.first, texts.negative_first),
            "clip2": (texts.second, texts.negative_second),
        }[network]
        return torch.cat([negative.expand(len(rows), -1), prompts[rows]])

    @functools.cached_property
    def _captions(self) -> TokenTable:
        captions = read_captions(self._model.captions)[:MOST_CAPTIONS]
        return tokenise(self._model.checkpoint, [caption.text for caption in captions], self._spec.tokens)

    @functools.cached_property
    def _odd_prompts(self) -> TokenTable:
        return tokenise(self._model.checkpoint, list(PROMPTS.values()), self._spec.tokens)

    def _text(self, images: tuple[int, ...]) -> Tensors:
        """What the reference's text encoders make of the captions of some images."""
        first, second = (
            self._reference.outputs(name, {"input_ids": self._ids(name, Case(name, images))})
            for name in ("clip1", "clip2")
        )
        hidden = torch.cat([first["hidden_states"], second["hidden_states"]], dim=-1)
        return {"encoder_hidden_states": hidden, "text_embeds": second["text_embeddings"]}

    def _recorded(self, kind: str, number: int) -> Tensors:
        """What the decoder (`vae`) or a UNet at a step (`step`) was given when the reference drew image 0."""
        networks = ("vae",) if kind == "vae" else ("unet", "shallow_unet")
        return [call.inputs for call in self._reference.calls() if call.network in networks][number]

    @staticmethod
    def _shifted(recorded: Tensor, images: tuple[int, ...]) -> Tensor:
        """Image 0's rows for each image, moved round the edges: other values in every row, of the same kind.

        Args:
            recorded: (rows, C, S, S), of image 0: a negative and a positive row, or one.
            images: Which images; odd ones are mirrored too.
        """

        def moved(row: Tensor, image: int) -> Tensor:
            turned = row.flip(-1) if image % 2 else row
            return turned.roll((image, 3 * image), dims=(-2, -1))

        return torch.stack([moved(row, image) for row in recorded for image in images])
