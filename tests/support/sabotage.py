"""Pipelines with exactly one fault each, given to the real run by `--sdxl-pipeline=tests.support.sabotage:NAME`.

A fault in the networks or in the loop is drawn anew. One after the last step, or in which prompt is drawn, does not
change what the networks compute: it is put upon the images of an intact run, which the settings name as the baseline.
"""

import dataclasses

import numpy as np
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


def intact(settings):
    return open_pipeline(settings)


def wrong_sigma(settings):
    """The noise level of one step in the middle is twice what it should be."""
    pipeline = open_pipeline(settings)
    sigmas = pipeline.schedule.sigmas.copy()
    sigmas[10] *= 2
    pipeline.schedule = dataclasses.replace(pipeline.schedule, sigmas=sigmas)
    return pipeline


def no_guidance(settings):
    pipeline = open_pipeline(settings)
    pipeline.guidance_scale = 1.0
    return pipeline


def swapped_guidance_rows(settings):
    """The positive row is taken for the negative one."""
    pipeline = open_pipeline(settings)
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
    pipeline = open_pipeline(settings)
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
