"""Pipelines with exactly one fault each, given to the real run by `--sdxl-pipeline=tests.support.sabotage:NAME`.

What comes before a fault is as in an intact run, so it is not computed again. A fault late in the loop starts from the
latents that the intact run had there and left in the build folder. One after the decoder, or in which prompt is drawn,
is put upon the images of that run, which the settings name as the baseline.
"""

import dataclasses

import numpy as np
import torch
from PIL import Image

from sdxl_engine.accuracy.kept_images import IMAGES
from sdxl_engine.assemble import open_pipeline
from sdxl_engine.loadgen import sut
from sdxl_engine.measure import captions
from sdxl_engine.run_system import BATCH_SIZE


class Drawn:
    """Gives the images that an intact run has drawn."""

    batch_size = BATCH_SIZE

    def __init__(self, settings):
        self.files = [settings.baseline / IMAGES / f"{caption.id}.png" for caption in captions(settings)]
        self.image_count = len(self.files)

    def generate(self, indices):
        return np.stack([np.asarray(Image.open(self.files[row])) for row in indices.tolist()])

    def warm_up(self):
        pass

    def close(self):
        pass


MIDDLE, END = 8, 20
"""The steps before which the intact run keeps its latents; a deep one, whose features are its own, and none."""


def latents(settings, row, step):
    """The file of one image's latents (4, S, S) before a step."""
    return settings.build_dir / "latents-of-the-intact-run" / f"{row}-{step}.npy"


def intact(settings):
    """Our pipeline as it is; it only keeps latents."""
    pipeline = open_pipeline(settings)
    latents(settings, 0, 0).parent.mkdir(parents=True, exist_ok=True)
    drawn = {}
    encode, denoise = pipeline.encode_prompts, pipeline.denoise

    def keep(step, tensor):
        for row, latent in zip(drawn["rows"], tensor.numpy(), strict=True):
            np.save(latents(settings, row, step), latent)

    def encode_and_note(buffers, run, rows):
        drawn["rows"], drawn["deep"] = rows.tolist(), 0
        encode(buffers, run, rows)

    def denoise_and_keep(buffers, run, start):
        def unet():
            if drawn["deep"] == MIDDLE // 2:  # every other step is deep
                scaled = buffers["sample"][: len(start)]
                keep(MIDDLE, scaled * (pipeline.schedule.sigmas[MIDDLE].item() ** 2 + 1) ** 0.5)
            drawn["deep"] += 1
            run["unet"]()

        result = denoise(buffers, run | {"unet": unet}, start)
        keep(END, result)
        return result

    pipeline.encode_prompts, pipeline.denoise = encode_and_note, denoise_and_keep
    return pipeline


def from_step(settings, step):
    """Our pipeline from a step on, with the latents that the intact run had before it."""
    pipeline = open_pipeline(settings)
    schedule, encode, drawn = pipeline.schedule, pipeline.encode_prompts, []
    pipeline.schedule = dataclasses.replace(
        schedule, timesteps=schedule.timesteps[step:], sigmas=schedule.sigmas[step:]
    )
    pipeline.deep = {each - step for each in pipeline.deep if each >= step}

    def encode_and_note(buffers, run, rows):
        drawn[:] = rows.tolist()
        encode(buffers, run, rows)

    pipeline.encode_prompts = encode_and_note
    pipeline.initial_latents = lambda _: torch.from_numpy(
        np.stack([np.load(latents(settings, row, step)) for row in drawn])
    )
    return pipeline


def wrong_sigma(settings):
    """The noise level of step 10 is twice what it should be."""
    pipeline = from_step(settings, MIDDLE)
    sigmas = pipeline.schedule.sigmas.copy()
    sigmas[10 - MIDDLE] *= 2
    pipeline.schedule = dataclasses.replace(pipeline.schedule, sigmas=sigmas)
    return pipeline


def no_guidance(settings):
    pipeline = open_pipeline(settings)
    pipeline.guidance_scale = 1.0
    return pipeline


def swapped_guidance_rows(settings):
    """The positive row is taken for the negative one, from the middle of the loop on."""
    pipeline = from_step(settings, MIDDLE)
    guide = pipeline.guide
    pipeline.guide = lambda noise: guide(noise.roll(len(noise) // 2, dims=0))
    return pipeline


def shifted_captions(settings):
    """Every prompt draws the image of the one after it."""
    pipeline = Drawn(settings)
    generate = pipeline.generate
    pipeline.generate = lambda indices: generate((np.asarray(indices) + 1) % pipeline.image_count)
    return pipeline


def stale_cache(settings):
    """The features of step 0 are never refreshed."""
    pipeline = open_pipeline(settings)
    pipeline.deep = {0}
    return pipeline


def unscaled_noise(settings):
    pipeline = open_pipeline(settings)
    pipeline.schedule = dataclasses.replace(pipeline.schedule, init_noise_sigma=1.0)
    return pipeline


def unscaled_latents(settings):
    """The decoder gets the latents as the UNet left them."""
    pipeline = from_step(settings, END)
    pipeline.spec = dataclasses.replace(pipeline.spec, vae_scaling_factor=1.0)
    return pipeline


def swapped_red_and_blue(settings):
    pipeline = Drawn(settings)
    generate = pipeline.generate
    pipeline.generate = lambda indices: np.ascontiguousarray(generate(indices)[..., ::-1])
    return pipeline


def one_in_ten_black(settings):
    pipeline = Drawn(settings)
    generate = pipeline.generate

    def draw(indices):
        images = generate(indices)
        images[np.asarray(indices) % 10 == 0] = 0
        return images

    pipeline.generate = draw
    return pipeline


def lost_response(settings):
    """The first response of the second batch never reaches LoadGen; this runs in LoadGen's own process."""
    hand_over, batches = sut.hand_over, []

    def lossy(ids, images):
        batches.append(len(ids))
        lost = len(batches) == 2
        return hand_over(ids[lost:], images[lost:])

    sut.hand_over = lossy
    return Drawn(settings)
