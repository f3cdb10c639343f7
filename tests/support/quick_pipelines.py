"""A pipeline under test that needs no diffusion: `--sdxl-pipeline=tests.support.quick_pipelines:renders`."""

import time

import numpy as np

from sdxl_engine.measure import captions
from sdxl_engine.shapes.grammar import parse
from sdxl_engine.shapes.render import render, scene_tensors


class Renders:
    """Draws what each caption says, with noise that depends on the caption alone.

    Args:
        settings: Of the run.
        delay_s: Seconds that a batch takes longer.
        noise: Standard deviation, where 1 is white.
    """

    batch_size = 8

    def __init__(self, settings, delay_s=0.0, noise=0.05):
        self.captions = captions(settings)
        self.image_count = len(self.captions)
        self.delay_s, self.noise = delay_s, noise

    def generate(self, indices):
        time.sleep(self.delay_s)
        rows = [self.captions[row] for row in indices.tolist()]
        pictures = render(scene_tensors([parse(row.text) for row in rows])).permute(0, 2, 3, 1).numpy()
        noise = np.stack([np.random.default_rng(row.id).normal(0, self.noise, pictures.shape[1:]) for row in rows])
        return np.ascontiguousarray(((pictures + noise).clip(0, 1) * 255).round().astype(np.uint8))

    def warm_up(self):
        pass

    def close(self):
        pass


def renders(settings):
    return Renders(settings)


def clean_renders(settings):
    """So close to what the metric networks have learnt that the ranges of `shapes` hold them."""
    return Renders(settings, noise=0.002)


def swapped_renders(settings):
    """Red and blue swapped: no range holds them."""
    pipeline = clean_renders(settings)
    generate = pipeline.generate
    pipeline.generate = lambda indices: np.ascontiguousarray(generate(indices)[..., ::-1])
    return pipeline


def slow_renders(settings):
    """Slow enough to be killed in between."""
    return Renders(settings, delay_s=0.2)


def broken_renders(settings):
    """Raises in the middle of the run."""
    pipeline = Renders(settings, delay_s=0.5)
    generate = pipeline.generate

    def fail(indices):
        if 100 in indices:
            raise ValueError("out of paper")
        return generate(indices)

    pipeline.generate = fail
    return pipeline
