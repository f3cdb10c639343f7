"""Log folders of runs that were scored, made by hand: a record, and the images it is of."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from sdxl_engine.accuracy.records import RECORD, Block, Record, RecordWriter

METRIC = {"variant": "shapes", "clip_weights_sha256": "aa", "clip_resize": "128", "fid_weights_sha256": "f"}
HEADER = {"run": {"captions": 512, "captions_sha256": "cc"}, "metric": METRIC}


def picture(level, side=16):
    """A picture that differs from that of any other level."""
    return np.full((side, side, 3), level, np.uint8)


def block(clip, images=None):
    """One block: the scores by id, and the digests of the images by id."""
    pictures = images or {key: picture(key % 256) for key in clip}
    return Block(
        ids=tuple(clip),
        digests=tuple(hashlib.sha256(pictures[key]).hexdigest() for key in clip),
        clip=np.array(list(clip.values()), np.float64),
        features=np.zeros((len(clip), 2), np.float32),
    )


def record(clip, images=None, header=HEADER):
    return Record(header, (block(clip, images),), 0)


def write_run(folder: Path, clip, images=None, header=HEADER, *, save=True):
    """A log folder with its record and, with `save`, the images as pictures."""
    folder.mkdir(parents=True)
    writer = RecordWriter(folder / RECORD, header)
    writer.append(block(clip, images))
    writer.close()
    if save and images:
        (folder / "images").mkdir()
        for key, image in images.items():
            Image.fromarray(image).save(folder / "images" / f"{key}.png")
    return folder


def write_accuracy_log(folder: Path, images):
    """LoadGen's accuracy log of the images, in their order; the sample's number says nothing of the caption's id."""
    rows = [
        f'{{ "seq_id" : {row}, "qsl_idx" : {row}, "data" : "{image.tobytes().hex().upper()}" }}'
        for row, image in enumerate(images)
    ]
    (folder / "mlperf_log_accuracy.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
