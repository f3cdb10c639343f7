"""Does a picture show its caption? Decided by counting pixels, independently of every network.

Each pixel is taken for the nearest colour of the two palettes. A picture passes if its frame has the background's
colour and, around the place of each object, the named colour covers about the area of the named shape and size,
centred about there, and no other object colour covers much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdxl_engine.shapes.grammar import BACKGROUNDS, COLOURS, SIZES, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = 3
"""Width in pixels of the frame that no object reaches."""
REACH = 30
"""Half the side, in pixels, of the window around an object's place."""
FRAME_SHARE = 0.9
AREA_FACTOR = 1.8
"""The area may be off by this factor either way; a large object has 3.4 times the area of a small one."""
CENTRE_SLACK = 10.0
"""Pixels between the centroid and the place; the renderer itself moves objects by up to 5 along x and y."""
STRAY_SHARE = 0.25
"""Most that other object colours may cover, relative to the named one; edges blend into other palette colours."""

_NAMES = [*COLOURS, *BACKGROUNDS]
_PALETTE = np.array([*COLOURS.values(), *BACKGROUNDS.values()], dtype=np.int32)

_UNIT_AREAS = {
    "circle": math.pi,
    "square": (2 * 0.88) ** 2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,
    "cross": 4 * (2 * 0.34 - 0.34**2),
    "ring": math.pi * (1 - 0.44**2),
}
"""Area of each shape of radius 1, from the renderer's geometry."""


@dataclass(frozen=True)
class PixelCheck:
    """What the pixels of one picture say.

    Args:
        background: The frame has the background's colour.
        objects: Per object, whether it is there: colour, place and size.
    """

    background: bool
    objects: tuple[bool, ...]

    @property
    def passed(self) -> bool:
        """Everything is as the caption says."""
        return self.background and all(self.objects)


def check_picture(picture: NDArray[np.uint8], caption: str) -> PixelCheck:
    """Check one picture.

    Args:
        picture: (128, 128, 3) uint8, RGB.
        caption: A sentence of the grammar.

    Raises:
        ValueError: the caption is not of the grammar.
    """
    scene = parse(caption)
    distance = ((picture[:, :, None].astype(np.int32) - _PALETTE) ** 2).sum(axis=-1)
    nearest = distance.argmin(axis=-1)
    frame = np.ones(nearest.shape, dtype=bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    background = (nearest[frame] == _NAMES.index(scene.background)).mean() >= FRAME_SHARE
    objects = []
    for thing, (x, y) in zip(scene.things, scene.centres, strict=True):
        top, left = int(y) - REACH, int(x) - REACH
        window = nearest[max(top, 0) : int(y) + REACH, max(left, 0) : int(x) + REACH]
        rows, columns = np.nonzero(window == _NAMES.index(thing.colour))
        expected = _UNIT_AREAS[thing.shape] * SIZES[thing.size] ** 2
        if not expected / AREA_FACTOR <= len(rows) <= expected * AREA_FACTOR:
            objects.append(False)
            continue
        off = math.hypot(columns.mean() + max(left, 0) + 0.5 - x, rows.mean() + max(top, 0) + 0.5 - y)
        strays = (window < len(COLOURS)).sum() - len(rows)
        objects.append(off <= CENTRE_SLACK and strays <= STRAY_SHARE * len(rows))
    return PixelCheck(bool(background), tuple(bool(found) for found in objects))
