"""Draw docs/shapes.png: 32 validation captions, NoOpt beside DeepCache. Run: python docs/make_shapes_picture.py."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sdxl_engine.assemble import open_pipeline
from sdxl_engine.measure import captions
from sdxl_engine.settings import RunSettings

COUNT, COLUMNS, SIDE, GAP, TEXT = 32, 4, 128, 6, 34


def main() -> None:
    """Draw both variants of every caption into one sheet."""
    drawn = {}
    for model_opt in ("NoOpt", "DeepCache"):
        settings = RunSettings(model="shapes", model_opt=model_opt, samples=COUNT)
        pipeline = open_pipeline(settings)
        batches = np.arange(COUNT).reshape(-1, pipeline.batch_size)
        drawn[model_opt] = np.concatenate([pipeline.generate(rows) for rows in batches])
        pipeline.close()
    width, height = 2 * SIDE + 4 * GAP, SIDE + TEXT + GAP
    sheet = Image.new("RGB", (COLUMNS * width, COUNT // COLUMNS * height + GAP), "#d8d8d8")
    pen = ImageDraw.Draw(sheet)
    for row, caption in enumerate(captions(settings)):
        left, top = row % COLUMNS * width + GAP, row // COLUMNS * height + GAP
        for column, images in enumerate(drawn.values()):
            sheet.paste(Image.fromarray(images[row]), (left + column * (SIDE + GAP), top))
        pen.text((left, top + SIDE + 3), "\n".join(textwrap.wrap(caption.text, 44)), fill="black", font_size=11)
    sheet.save(Path(__file__).with_name("shapes.png"), optimize=True)


if __name__ == "__main__":
    main()
