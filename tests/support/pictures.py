"""Seeded 1024x1024 pictures of four kinds, drawn one at a time: rendered, photographic, noise, extremes."""

from __future__ import annotations

import csv
import functools

import numpy as np
import torch
from PIL import Image, ImageFilter

from sdxl_engine.shapes import bundle
from sdxl_engine.shapes.grammar import parse
from sdxl_engine.shapes.render import render, scene_tensors

SIDE = 1024

CAPTIONS = (
    "A cat on a mat.",
    "Two dogs run along the beach at sunset, and one of them carries a red ball",
    'A road sign that says "STOP" in front of a row of parked cars',
    "a large green triangle above a small pink ring on a white background",
    "An astronaut in an orange suit smiles in front of a flag and a model of the Space Shuttle.",
    "A bowl of soup, 3 slices of bread & a half-empty glass of water on someone's wooden table",
    "Black and white checkerboard",
    "rocket",
    "a picture " + "of a picture " * 40 + "of a cup of coffee",
    "In the kitchen " + "there is a stove, a sink, a window, a chair, and " * 12 + "nobody cooks.",
)
"""For the text tower; the last two are longer than its 77 tokens."""

PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
    "brick",
    "camera",
    "coins",
    "grass",
    "gravel",
    "moon",
    "page",
)
"""Images that scikit-image's wheel holds, so that nothing is downloaded; from brick on they are grey."""


def picture(seed: int, index: int) -> np.ndarray:
    """Picture `index` of the set `seed`, (1024, 1024, 3) uint8; of 16 in a row 4 are rendered, 7 photographic, 3
    noise and 2 extremes.
    """
    generator = np.random.default_rng([seed, index])
    place = index % 16
    kind = rendered if place < 4 else photographic if place < 11 else noise if place < 14 else extreme
    return np.ascontiguousarray(kind(generator, index))


@functools.cache
def _sentences() -> list[str]:
    with (bundle.BUNDLE / bundle.CAPTIONS).open(newline="") as file:
        return [row["caption"] for row in csv.DictReader(file, delimiter="\t")]


@functools.cache
def _photograph(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)()).convert("RGB")


def _enlarged(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)


def rendered(generator: np.random.Generator, _index: int) -> np.ndarray:
    """A scene of the project's own renderer, enlarged."""
    caption = _sentences()[generator.integers(len(_sentences()))]
    jitter = torch.Generator().manual_seed(int(generator.integers(2**31)))
    small = render(scene_tensors([parse(caption)]), jitter)[0]
    pixels = small.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return np.asarray(_enlarged(Image.fromarray(pixels)))


def photographic(generator: np.random.Generator, index: int) -> np.ndarray:
    """A square crop of a photograph, enlarged or reduced, perhaps mirrored, with another brightness and contrast."""
    image = _photograph(PHOTOGRAPHS[(index // 16 * 7 + index % 16 - 4) % len(PHOTOGRAPHS)])
    side = int(min(image.size) * generator.uniform(0.35, 1))
    left, top = (int(generator.integers(length - side + 1)) for length in image.size)
    pixels = np.asarray(_enlarged(image, (left, top, left + side, top + side))).astype(np.float32)
    if generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    changed = pixels * generator.uniform(0.6, 1.4) + generator.uniform(-40, 40, 3).astype(np.float32)
    return changed.clip(0, 255).round().astype(np.uint8)


def noise(generator: np.random.Generator, index: int) -> np.ndarray:
    """Uniform noise, as it is or blurred at one of five scales and stretched back to the whole range."""
    pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    radius = (0, 1, 3, 8, 20, 60)[(index // 16 * 3 + index % 16 - 11) % 6]
    if not radius:
        return pixels
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))).astype(np.float32)
    low, high = blurred.min(axis=(0, 1)), blurred.max(axis=(0, 1))
    return ((blurred - low) * (255 / (high - low))).round().astype(np.uint8)


def extreme(generator: np.random.Generator, index: int) -> np.ndarray:
    """Black, white, one-pixel checkerboards, one-pixel stripes or halves, in colours at the corners of the cube."""
    which = index // 16 * 2 + index % 16 - 14
    if which < 2:
        return np.full((SIDE, SIDE, 3), 255 * which, dtype=np.uint8)
    one, other = generator.permutation(8)[:2]
    colours = np.array([[255 * (colour >> bit & 1) for bit in range(3)] for colour in (one, other)], dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = (x + y) % 2, x % 2, y % 2, x > generator.integers(SIDE), y > generator.integers(SIDE)
    return colours[masks[which % len(masks)].astype(int)]
