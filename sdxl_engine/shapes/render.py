"""The renderer of `shapes`: scenes to 128x128 pictures from signed distances, many at a time, on any torch device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdxl_engine.shapes.grammar import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 128
"""Pixels per side."""

POSITION_JITTER = 5.0
"""Each centre is moved by a uniform amount of at most this many pixels along x and along y."""

RADIUS_JITTER = 0.08
"""Each radius is scaled by a uniform factor of 1 plus or minus this."""


@dataclass(frozen=True)
class SceneTensors:
    """A batch of N scenes as tensors, for rendering and as labels; a missing second object has shape -1.

    Args:
        shape: (N, 2) int64, index into `SHAPES`, -1 for none.
        colour: (N, 2) int64, index into `COLOURS`.
        size: (N, 2) int64, index into `SIZES`.
        centre: (N, 2, 2) float32, (x, y) in pixels.
        background: (N,) int64, index into `BACKGROUNDS`.
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    centre: Tensor
    background: Tensor

    def __getitem__(self, rows: Tensor | slice) -> SceneTensors:
        return SceneTensors(
            self.shape[rows], self.colour[rows], self.size[rows], self.centre[rows], self.background[rows]
        )

    def to(self, device: torch.device | str) -> SceneTensors:
        """The same batch on another device."""
        return SceneTensors(*(field.to(device) for field in vars(self).values()))


def scene_tensors(scenes: Sequence[Scene]) -> SceneTensors:
    """Scenes as a batch of tensors on the CPU."""
    shapes, colours, sizes, backgrounds = list(SHAPES), list(COLOURS), list(SIZES), list(BACKGROUNDS)
    rows = []
    for scene in scenes:
        things = [
            (shapes.index(thing.shape), colours.index(thing.colour), sizes.index(thing.size), *centre)
            for thing, centre in zip(scene.things, scene.centres, strict=True)
        ]
        rows.append(things + [(-1, 0, 0, 0.0, 0.0)] * (2 - len(things)))
    table = torch.tensor(rows, dtype=torch.float32)
    shape, colour, size = (table[..., column].long() for column in range(3))
    background = torch.tensor([backgrounds.index(scene.background) for scene in scenes])
    return SceneTensors(shape, colour, size, table[..., 3:].contiguous(), background)


@functools.cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Object colours (6, 3), background colours (4, 3), both in [0, 1], and radii (2,), once per device.

    Once, because a copy from the host cannot be part of a captured CUDA graph.
    """
    return (
        torch.tensor(list(COLOURS.values()), device=device) / 255,
        torch.tensor(list(BACKGROUNDS.values()), device=device) / 255,
        torch.tensor(list(SIZES.values()), device=device),
    )


def _distances(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Signed distance in pixels (negative inside) of every point to each of `SHAPES`: (5, N, 2, SIDE, SIDE)."""
    circle = torch.hypot(x, y) - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.88 * radius
    # An upright equilateral triangle: the lower edge and two slanted ones, 60 degrees apart.
    triangle = torch.maximum(y, 0.8660254 * x.abs() - 0.5 * y) - 0.55 * radius
    bar, arm = 0.34 * radius, radius
    upright = torch.maximum(x.abs() - bar, y.abs() - arm)
    level = torch.maximum(x.abs() - arm, y.abs() - bar)
    ring = (torch.hypot(x, y) - 0.72 * radius).abs() - 0.28 * radius
    return torch.stack([circle, square, triangle, torch.minimum(upright, level), ring])


def render(scenes: SceneTensors, generator: torch.Generator | None = None) -> Tensor:
    """Draw a batch of scenes.

    Args:
        scenes: N scenes; the picture is made on their device.
        generator: Of the jitter in position and radius, on that device; None draws without jitter.

    Returns:
        (N, 3, 128, 128) float32 in [0, 1], RGB, edges anti-aliased over one pixel.
    """
    device = scenes.shape.device
    count = len(scenes.shape)
    palette, grounds, radii = _tables(device)
    radius = radii[scenes.size]
    centre = scenes.centre
    if generator is not None:
        centre = centre + POSITION_JITTER * (2 * torch.rand(count, 2, 2, device=device, generator=generator) - 1)
        radius = radius * (1 + RADIUS_JITTER * (2 * torch.rand(count, 2, device=device, generator=generator) - 1))
    pixel = torch.arange(SIDE, device=device) + 0.5
    x = pixel[None, None, None, :] - centre[..., 0, None, None]
    y = pixel[None, None, :, None] - centre[..., 1, None, None]
    x, y = x.expand(-1, -1, SIDE, -1), y.expand(-1, -1, -1, SIDE)
    wanted = scenes.shape.clamp(min=0)[None, ..., None, None].expand(1, -1, -1, SIDE, SIDE)
    distance = _distances(x, y, radius[..., None, None]).gather(0, wanted)[0]
    cover = (0.5 - distance).clamp(0, 1) * (scenes.shape >= 0)[..., None, None]
    picture = grounds[scenes.background][:, :, None, None].expand(-1, -1, SIDE, SIDE)
    for which in range(2):
        alpha = cover[:, which, None]
        picture = torch.lerp(picture, palette[scenes.colour[:, which]][:, :, None, None], alpha)
    return picture
