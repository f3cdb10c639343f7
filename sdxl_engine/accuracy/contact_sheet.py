"""A picture of prompts that went wrong: for each, the image it should look like, the run's image, and the figures."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SIDE = 256
"""Pixels per side of a shown image: smaller ones are enlarged by a whole number, larger ones made smaller."""

COLUMNS = 2
GAP = 8
LINE = 15
FONT = 12
CAPTION_LINES = 2
LETTERS = 2 * SIDE // 6
"""Of one line of text below a pair of images."""

PAPER, INK, EMPTY = "#e8e8e8", "black", "#c0c0c0"


@dataclass(frozen=True)
class SheetRow:
    """One prompt.

    Args:
        caption: Shown below the images, cut after two lines.
        figures: One line shown below the caption.
        left: (H, W, 3) uint8 RGB; None where there is none.
        left_name: What it is.
        right: (H, W, 3) uint8 RGB, the run's; None where there is none.
    """

    caption: str
    figures: str
    left: NDArray[np.uint8] | None
    left_name: str
    right: NDArray[np.uint8] | None


def worst_picture(path: Path, rows: Sequence[SheetRow]) -> None:
    """Write the sheet as PNG, two prompts side by side, first the worst.

    Args:
        path: The file; its folder is made.
        rows: One prompt each; at least one.
    """
    from PIL import Image, ImageDraw

    width = 2 * SIDE + 3 * GAP
    height = SIDE + (2 + CAPTION_LINES) * LINE + 2 * GAP
    columns = min(COLUMNS, len(rows))
    sheet = Image.new("RGB", (columns * width, -(-len(rows) // columns) * height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, row in enumerate(rows):
        left, top = place % columns * width + GAP, place // columns * height + GAP
        for column, (image, name) in enumerate(((row.left, row.left_name), (row.right, "run"))):
            corner = (left + column * (SIDE + GAP), top + LINE)
            pen.text((corner[0], top), name if image is not None else f"{name}: no image", fill=INK, font_size=FONT)
            pen.rectangle((*corner, corner[0] + SIDE - 1, corner[1] + SIDE - 1), fill=EMPTY)
            if image is not None:
                shown = _fitted(Image.fromarray(image))
                sheet.paste(shown, (corner[0] + (SIDE - shown.width) // 2, corner[1] + (SIDE - shown.height) // 2))
        lines = textwrap.wrap(row.caption, LETTERS, max_lines=CAPTION_LINES, placeholder=" …")
        pen.text((left, top + LINE + SIDE + 3), "\n".join([*lines, row.figures]), fill=INK, font_size=FONT)
    with written_whole(path) as aside:
        sheet.save(aside, format="PNG", optimize=True)


def _fitted(image: Image.Image) -> Image.Image:
    """The image at most `SIDE` high and wide: reduced, or enlarged by a whole number so that its pixels show."""
    from PIL.Image import Resampling

    longest = max(image.size)
    if longest > SIDE:
        scale = SIDE / longest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Resampling.LANCZOS)
    factor = SIDE // longest
    return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
