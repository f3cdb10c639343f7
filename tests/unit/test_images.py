"""Images of a log, in batches by caption id."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sdxl_engine.errors import AccuracyError
from sdxl_engine.images import from_log
from sdxl_engine.loadgen.accuracy_log import AccuracyLog

SIDE = 4
IDS = [139, 285, 632]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "mlperf_log_accuracy.json"
    rows = (2, 0, 1)
    entries = [f'{{ "seq_id" : 0, "qsl_idx" : {row}, "data" : "{bytes([row] * 48).hex()}" }}' for row in rows]
    path.write_text("[\n" + ",\n".join(entries) + "\n]\n")
    return AccuracyLog(path)


def test_batches_of_a_log(log):
    batches = list(from_log(log, IDS, SIDE, 2))
    assert [ids for ids, _ in batches] == [[632, 139], [285]]
    for images, rows in zip((images for _, images in batches), ([2, 0], [1]), strict=True):
        assert images.dtype == np.uint8
        assert images.shape == (len(rows), SIDE, SIDE, 3)
        assert [set(image.flat) for image in images] == [{row} for row in rows]
    assert log.file_sha256 == hashlib.sha256(log.path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("ids", "side", "got"), [(IDS, 5, "sample 2, 48 bytes"), (IDS[:2], SIDE, "sample 2,")])
def test_a_response_that_is_no_image_of_the_run(log, ids, side, got):
    with pytest.raises(AccuracyError) as caught:
        list(from_log(log, ids, side, 2))
    assert caught.value.parts["got"].startswith(got)
    assert caught.value.parts["from"] == str(log.path)
