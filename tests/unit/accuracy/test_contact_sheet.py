import numpy as np
import pytest
from PIL import Image

from sdxl_engine.accuracy.contact_sheet import GAP, LINE, SIDE, SheetRow, worst_picture

CELL = (2 * SIDE + 3 * GAP, SIDE + 4 * LINE + 2 * GAP)
LEFT = (GAP, GAP + LINE)
RIGHT = (2 * GAP + SIDE, GAP + LINE)


def halves(side, top, bottom):
    image = np.full((side, side, 3), top, np.uint8)
    image[side // 2 :] = bottom
    return image


def drawn(tmp_path, *rows):
    path = tmp_path / "new" / "sheet.png"
    worst_picture(path, rows)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def row(left, right, caption="a cat", figures="CLIP 1"):
    return SheetRow(caption, figures, left, "baseline", right)


@pytest.mark.parametrize("side", [128, 64, 256, 1024])
def test_images_of_any_size_fill_their_places_the_baseline_on_the_left(tmp_path, side):
    sheet = drawn(tmp_path, row(halves(side, (200, 0, 0), (0, 200, 0)), halves(side, (0, 0, 200), (9, 9, 9))))
    assert sheet.shape == (CELL[1], CELL[0], 3)
    for (x, y), top, bottom in ((LEFT, (200, 0, 0), (0, 200, 0)), (RIGHT, (0, 0, 200), (9, 9, 9))):
        place = sheet[y : y + SIDE, x : x + SIDE].reshape(SIDE, -1)
        middle = SIDE // 2
        # Reducing by Lanczos rings by a few levels at the edge.
        assert (place[: middle - 8] == np.tile(top, SIDE)).all()
        assert (place[middle + 8 :] == np.tile(bottom, SIDE)).all()


def test_two_prompts_side_by_side_then_below(tmp_path):
    levels = (10, 60, 110)
    sheet = drawn(tmp_path, *(row(None, np.full((128, 128, 3), level, np.uint8)) for level in levels))
    assert sheet.shape == (2 * CELL[1], 2 * CELL[0], 3)
    for place, level in enumerate(levels):
        x, y = place % 2 * CELL[0] + RIGHT[0], place // 2 * CELL[1] + RIGHT[1]
        assert (sheet[y : y + SIDE, x : x + SIDE] == level).all()


def test_an_image_that_is_not_there_leaves_its_place_empty(tmp_path):
    sheet = drawn(tmp_path, row(None, halves(128, 1, 2)))
    place = sheet[LEFT[1] : LEFT[1] + SIDE, LEFT[0] : LEFT[0] + SIDE]
    assert (place == (0xC0, 0xC0, 0xC0)).all()


def test_caption_and_figures_are_written_below_and_stay_in_their_cell(tmp_path):
    image = halves(128, 1, 2)

    def written(caption, figures):
        return drawn(tmp_path, row(image, image, caption, figures))[LEFT[1] + SIDE :] < 128

    nothing = written("", "")
    short, long = written("a cat", "CLIP 1"), written("a cat on a very long sofa " * 40, "CLIP 1")
    assert not nothing.any()
    assert 0 < short.sum() < long.sum()
    assert not long[:, : GAP - 1].any()
    assert not long[:, -GAP:].any()
    assert not long[-2:].any()
    assert (written("a cat", "CLIP 2") != short).any()
