"""Which images of a run are kept as pictures."""

import math

import numpy as np
import pytest
from PIL import Image

from sdxl_engine.accuracy.kept_images import KeptImages

IDS = tuple(range(10))
BASELINE = dict.fromkeys(IDS, 30.0) | {9: 90.0}
CLIP = np.array([30.0, 29.0, 31.0, 25.0, 30.5, 28.0, 30.0, 30.0, 29.5, 80.0])
"""Against the baseline: 9 lost 10, 3 lost 5, 5 lost 2, 1 lost 1."""

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def kept(folder):
    return sorted(int(path.stem) for path in folder.iterdir())


def see(keeper, rows, clip=CLIP):
    for start in range(0, len(rows), 3):
        part = list(rows[start : start + 3])
        keeper.see(tuple(part), clip[part], IMAGES[part])


@pytest.mark.parametrize("order", [IDS, IDS[::-1]])
def test_the_worst_against_the_baseline_are_kept_in_any_order(tmp_path, order):
    see(KeptImages(tmp_path, 3, BASELINE), order)
    assert kept(tmp_path) == [3, 5, 9]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "5.png")), IMAGES[5])


def test_without_a_baseline_the_lowest_scores_are_kept(tmp_path):
    see(KeptImages(tmp_path, 3, {}), IDS)
    assert kept(tmp_path) == [1, 3, 5]


def test_a_score_that_is_no_number_is_the_worst(tmp_path):
    clip = CLIP.copy()
    clip[7] = math.nan
    see(KeptImages(tmp_path, 2, BASELINE), IDS, clip)
    assert kept(tmp_path) == [7, 9]


def test_all_are_kept(tmp_path):
    see(KeptImages(tmp_path, None, BASELINE), IDS)
    assert kept(tmp_path) == list(IDS)


def test_a_run_that_goes_on_keeps_what_one_run_keeps(tmp_path):
    see(KeptImages(tmp_path, 3, BASELINE), IDS[:6])
    scored = dict(zip(IDS[:6], CLIP[:6].tolist(), strict=True))
    see(KeptImages(tmp_path, 3, BASELINE, scored), IDS[6:])
    assert kept(tmp_path) == [3, 5, 9]
