import numpy as np
import pytest
from PIL import Image
from scored_runs import block, picture, write_accuracy_log, write_run

from sdxl_engine.accuracy.run_images import find_images, saved_ids, true_renders
from sdxl_engine.shapes.pixel_check import check_picture

IMAGES = {40: picture(4), 41: picture(5), 42: picture(6), 43: picture(6)}
CLIP = dict.fromkeys(IMAGES, 99.0)
DIGESTS = dict(zip(IMAGES, block(CLIP, IMAGES).digests, strict=True))


def same(found, ids):
    assert found.keys() == set(ids)
    return all(np.array_equal(found[key], IMAGES[key]) for key in ids)


def test_saved_pictures_are_found(tmp_path):
    folder = write_run(tmp_path / "run", CLIP, IMAGES)
    assert same(find_images(folder, DIGESTS), IMAGES)
    assert saved_ids(folder, [39, 40, 41]) == [40, 41]


@pytest.mark.parametrize("fallback", [False, True], ids=["no log", "log"])
def test_a_picture_that_is_not_the_scored_one_is_left_out(tmp_path, fallback):
    folder = write_run(tmp_path / "run", CLIP, IMAGES)
    Image.fromarray(picture(99)).save(folder / "images" / "41.png")
    if fallback:
        write_accuracy_log(folder, [IMAGES[41]])
    assert same(find_images(folder, DIGESTS), IMAGES if fallback else (40, 42, 43))


def test_images_are_found_in_the_accuracy_log_whatever_its_order_and_where_two_are_equal(tmp_path):
    folder = write_run(tmp_path / "run", CLIP, IMAGES, save=False)
    write_accuracy_log(folder, [picture(1), IMAGES[42], IMAGES[43], IMAGES[40], IMAGES[41]])
    assert same(find_images(folder, DIGESTS), IMAGES)


def test_the_log_is_not_read_beyond_the_last_image_wanted(tmp_path):
    folder = write_run(tmp_path / "run", CLIP, IMAGES, save=False)
    write_accuracy_log(folder, [IMAGES[40], IMAGES[41]])
    log = folder / "mlperf_log_accuracy.json"
    log.write_text(log.read_text()[:-40])
    assert same(find_images(folder, {40: DIGESTS[40]}), [40])


def test_where_nothing_was_kept_nothing_is_found(tmp_path):
    folder = write_run(tmp_path / "run", CLIP)
    assert find_images(folder, DIGESTS) == {}
    assert find_images(None, DIGESTS) == {}
    assert saved_ids(None, DIGESTS) == []


def test_a_caption_of_the_grammar_has_a_true_render():
    caption = "a large red circle left of a small blue ring on a white background"
    found = true_renders({7: caption, 8: "a photo of a cat"})
    assert found.keys() == {7}
    assert (found[7].shape, found[7].dtype) == ((128, 128, 3), np.uint8)
    assert check_picture(found[7], caption).passed
    assert true_renders({8: "a photo of a cat"}) == {}
