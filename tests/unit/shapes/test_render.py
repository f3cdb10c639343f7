import numpy as np
import pytest
import torch

from sdxl_engine.shapes.grammar import BACKGROUNDS, COLOURS, Scene, Thing, parse, split
from sdxl_engine.shapes.pixel_check import check_picture
from sdxl_engine.shapes.render import render, scene_tensors


def pictures(captions, seed=0):
    scenes = scene_tensors([parse(caption) for caption in captions])
    drawn = render(scenes, torch.Generator().manual_seed(seed))
    return drawn.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def captions():
    return split()[0][:300]


def test_an_object_has_its_colour_on_its_background():
    caption = "a large green square on the left on a brown background"
    picture = pictures([caption])[0]
    assert tuple(picture[64, 34]) == COLOURS["green"]
    assert tuple(picture[64, 100]) == BACKGROUNDS["brown"]


def test_both_ends_of_a_scene_draw_the_same_picture():
    one, other = Thing("small", "red", "circle"), Thing("large", "blue", "ring")
    drawn = [
        render(scene_tensors([scene]))
        for scene in (Scene((one, other), "below", "gray"), Scene((other, one), "above", "gray"))
    ]
    torch.testing.assert_close(*drawn)


def test_the_pixel_check_passes_true_renders(captions):
    passed = [check_picture(*pair).passed for pair in zip(pictures(captions), captions, strict=True)]
    assert np.mean(passed) >= 0.99


@pytest.mark.parametrize(
    "spoil",
    [
        lambda picture: picture[..., ::-1],
        np.zeros_like,
        lambda picture: picture[::-1, ::-1],
        lambda picture: np.roll(picture, 24, axis=0),
    ],
    ids=["red and blue swapped", "black", "turned by 180 degrees", "moved by 24 pixels"],
)
def test_the_pixel_check_fails_wrong_pictures(captions, spoil):
    # Two objects of one colour and size would still stand right after a half turn.
    two = [c for c in captions if "red" in c and len({thing.colour for thing in parse(c).things}) == 2]
    passed = [
        check_picture(spoil(picture), caption).passed for picture, caption in zip(pictures(two), two, strict=True)
    ]
    assert np.mean(passed) <= 0.02


def test_the_pixel_check_fails_swapped_colours():
    said = "a small red circle left of a small blue circle on a white background"
    swapped = "a small blue circle left of a small red circle on a white background"
    assert check_picture(pictures([said])[0], said).passed
    assert check_picture(pictures([swapped])[0], said).objects == (False, False)


def test_the_pixel_check_fails_a_wrong_size():
    said = "a small red circle in the middle on a white background"
    drawn = "a large red circle in the middle on a white background"
    assert not check_picture(pictures([drawn])[0], said).passed
