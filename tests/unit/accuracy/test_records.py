"""The record of a run gives back every bit, survives a cut at any byte, and shows any other damage."""

import math
import random

import numpy as np
import pytest

from sdxl_engine.accuracy.records import Block, RecordWriter, read_record
from sdxl_engine.errors import AssetError

HEADER = {"run": {"model": "shapes", "captions": 6}, "metric": {"variant": "shapes"}}


def blocks():
    draws = np.random.default_rng(0)
    for start in (0, 2, 4):
        clip = draws.normal(30, 2, 2)
        features = draws.normal(size=(2, 5)).astype(np.float32)
        if start == 2:
            clip[0], features[1, 3] = math.nan, math.inf
        yield Block((start, start + 1), (f"{start:064x}", f"{start + 1:064x}"), clip, features)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "record.jsonl"
    writer = RecordWriter(path, HEADER)
    for block in blocks():
        writer.append(block)
    writer.close()
    return path


def assert_same(found, expected):
    assert (found.ids, found.digests) == (expected.ids, expected.digests)
    assert found.clip.tobytes() == expected.clip.tobytes()
    assert found.features.tobytes() == expected.features.tobytes()


def test_every_bit_comes_back(path):
    record = read_record(path)
    assert record.header == HEADER
    for found, expected in zip(record.blocks, blocks(), strict=True):
        assert_same(found, expected)
    assert record.size == path.stat().st_size
    assert record.digests[3] == f"{3:064x}"
    assert math.isnan(record.clip[2])


def test_a_cut_at_any_byte_loses_the_cut_line_alone_and_the_record_goes_on(path):
    data = path.read_bytes()
    ends = [end for end in range(len(data)) if data[end : end + 1] == b"\n"]
    random_cuts = random.Random(1).sample(range(ends[0] + 1, len(data)), 40)
    for cut in sorted({*random_cuts, *(end + 1 for end in ends), *ends[1:]}):
        path.write_bytes(data[:cut])
        record = read_record(path)
        assert len(record.blocks) == sum(end < cut for end in ends) - 1
        writer = RecordWriter(path, record=record)
        for block in list(blocks())[len(record.blocks) :]:
            writer.append(block)
        writer.close()
        assert path.read_bytes() == data


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_character_is_named_by_line(path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines[line]) // 2
    lines[line] = lines[line][:middle] + bytes([lines[line][middle] ^ 1]) + lines[line][middle + 1 :]
    path.write_bytes(b"".join(lines))
    with pytest.raises(AssetError, match="damaged") as caught:
        read_record(path)
    assert caught.value.parts["from"] == f"{path}:{line + 1}"


def test_a_changed_last_line_is_damage_and_not_a_cut(path):
    data = path.read_bytes()
    path.write_bytes(data[:-40] + b"~" + data[-39:])
    with pytest.raises(AssetError, match="damaged"):
        read_record(path)


@pytest.mark.parametrize("content", [b"", b'{"format": "sdxl', b"[1, 2]\n"])
def test_what_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "record.jsonl"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"empty|damaged"):
        read_record(path)


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(AssetError, match="no record"):
        read_record(tmp_path / "record.jsonl")
