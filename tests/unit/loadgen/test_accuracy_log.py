"""The reader of LoadGen's accuracy log, on good logs and on each kind of broken one."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import tracemalloc

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.loadgen.accuracy_log import AccuracyLog
from sdxl_engine.loadgen.read_ahead import BLOCK, LONGEST

GOOD = [
    "[",
    '{ "seq_id" : 0, "qsl_idx" : 2, "data" : "00FF" },',
    '{ "seq_id" : 1, "qsl_idx" : 0, "data" : "0A" },',
    '{ "seq_id" : 2, "qsl_idx" : 1, "data" : "7F" }',
    "]",
]
RESPONSES = [(2, b"\x00\xff"), (0, b"\x0a"), (1, b"\x7f")]


def write(path, lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())
    return path


def read(path, count=None):
    return [(entry.qsl_idx, entry.data) for entry in AccuracyLog(path, count).entries()]


def line_of_fault(path, count=None):
    """The line that the error names."""
    with pytest.raises(AssetError) as caught:
        read(path, count)
    return int(caught.value.parts["from"].removeprefix(f"{path}:"))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "mlperf_log_accuracy.json"


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Lines below, at and above the size of a block; the file, its responses, the offset of each line."""
    draw = random.Random(0)
    sizes = [3, BLOCK // 2 - 40, BLOCK // 2, 5 * BLOCK // 3, 1, 2 * BLOCK]
    responses = [(index, draw.randbytes(size)) for index, size in enumerate(sizes)]
    lines = [f'{{ "seq_id" : {i}, "qsl_idx" : {i}, "data" : "{data.hex().upper()}" }},' for i, data in responses]
    path = write(tmp_path_factory.mktemp("big") / "log.json", ["[", *lines[:-1], lines[-1][:-1], "]"])
    content = path.read_bytes()
    return content, responses, [0, *(match.end() for match in re.finditer(rb"\n", content))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_entries_in_the_order_of_the_log(log, end):
    assert read(write(log, GOOD, end), 3) == RESPONSES


def test_lower_case_digits_are_digits(log):
    assert read(write(log, [line.replace("00FF", "00fF").replace("0A", "0a") for line in GOOD])) == RESPONSES


def test_digests_of_each_response_and_of_the_file(log, big):
    content, responses, _ = big
    log.write_bytes(content)
    reader = AccuracyLog(log, len(responses))
    entries = list(reader.entries())
    assert [(entry.qsl_idx, entry.data) for entry in entries] == responses
    assert [entry.sha256 for entry in entries] == [hashlib.sha256(data).hexdigest() for _, data in responses]
    assert reader.file_sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("broken", [False, True])
def test_the_digest_of_a_file_is_not_known_before_its_end(log, broken):
    reader = AccuracyLog(write(log, GOOD[:-1] if broken else GOOD))
    entries = reader.entries()
    for _ in RESPONSES:
        next(entries)
    with pytest.raises(AssetError if broken else StopIteration):
        next(entries)
    if broken:
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = reader.file_sha256
    else:
        assert reader.file_sha256 == hashlib.sha256(log.read_bytes()).hexdigest()


def test_empty_list_is_a_whole_log_of_no_samples(log):
    assert read(write(log, ["[", "]"])) == []
    with pytest.raises(AssetError, match="samples were not answered"):
        read(log, 1)


@pytest.mark.parametrize(
    ("line", "replacement", "says"),
    [
        (1, "{", "an opening bracket"),
        (2, '{ "seq_id" : 0, "qsl_idx" : 2, "data" : "00', "corrupt or cut off"),
        (2, '{ "seq_id" : 0, "qsl_idx" : 2, "data" : " },', "corrupt or cut off"),
        (2, '{ "seq_id" : 0, "qsl_idx" : 2, "data" : "0" },', "Odd-length"),
        (3, '{ "seq_id" : 1, "qsl_idx" : 0, "data" : "0G" },', "Non-hexadecimal"),
        (3, '{ "seq_id" : 1, "qsl_idx" : 0, "data" : "" },', "is empty"),
        (3, '{ "seq_id" : 1, "qsl_idx" : 2, "data" : "0A" },', "answered twice"),
        (3, '{ "seq_id" : 1, "qsl_idx" : 3, "data" : "0A" },', "for no sample of the run"),
        (3, '{ "seq_id" : 1, "qsl_idx" : -1, "data" : "0A" },', "corrupt"),
        (4, '{ "seq_id" : 1, "qsl_idx" : 0, "data" : "0A" },\n]', "answered twice"),
        (4, '{ "seq_id" : 2, "qsl_idx" : 1, "data" : "7F" },', "corrupt"),
        (5, '{ "seq_id" : 3, "qsl_idx" : 4, "data" : "7F" },', "comma between entries"),
        (5, "]\n[", "nothing after the closing bracket"),
    ],
)
def test_fault_is_named_with_its_line(log, line, replacement, says):
    lines = list(GOOD)
    lines[line - 1] = replacement
    with pytest.raises(AssetError) as caught:
        read(write(log, lines), 3)
    at = line + (line == 4 and replacement.endswith('7F" },')) + (replacement == "]\n[")
    assert caught.value.parts["from"] == f"{log}:{at}"
    assert says in str(caught.value)


@pytest.mark.parametrize("size", range(1, len("\n".join(GOOD))))
def test_log_cut_off_anywhere_is_an_error(log, size):
    content = write(log, GOOD).read_bytes()[:size]
    log.write_bytes(content)
    assert line_of_fault(log) == max(1, content.count(b"\n") + (not content.endswith(b"\n")))


@pytest.mark.parametrize("seed", range(8))
def test_long_log_cut_off_in_a_line_names_the_line(log, big, seed):
    content, responses, offsets = big
    number = 1 + seed % len(responses)  # counts from 0: the line after the opening bracket
    size = random.Random(seed).randrange(offsets[number] + 1, offsets[number + 1] - 1)
    log.write_bytes(content[:size])
    assert line_of_fault(log) == number + 1


@pytest.mark.parametrize("seed", range(8))
def test_flipped_character_in_a_long_line(log, big, seed):
    """One that leaves no hex digit is named by its line; one that makes another digit shows in the digests."""
    content, responses, offsets = big
    number = 2 + seed % 3
    at = random.Random(seed).randrange(offsets[number] + 50, offsets[number + 1] - 6)
    broken = bytearray(content)
    broken[at] ^= 0x80
    log.write_bytes(broken)
    assert line_of_fault(log) == number + 1
    broken[at] = ord("0") if content[at] != ord("0") else ord("1")
    log.write_bytes(broken)
    reader = AccuracyLog(log)
    changed = [entry.qsl_idx for entry in reader.entries() if entry.data != responses[entry.qsl_idx][1]]
    assert changed == [number - 1]
    assert reader.file_sha256 != hashlib.sha256(content).hexdigest()


def test_missing_samples_are_listed(log):
    with pytest.raises(AssetError, match="samples were not answered") as caught:
        read(write(log, GOOD), 5)
    assert caught.value.parts["got"] == "3 responses; missing: qsl_idx 3, 4"


@pytest.mark.parametrize("content", [None, ""])
def test_no_log_or_an_empty_one(log, content):
    if content is not None:
        log.write_text(content)
    with pytest.raises(AssetError, match=r"missing|cut off"):
        read(log)


def test_memory_is_that_of_few_entries(log):
    size = 1 << 20
    with log.open("w") as file:
        file.write("[\n")
        for index in range(24):
            comma = "," if index < 23 else ""
            file.write(f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "{"AB" * size}" }}{comma}\n')
        file.write("]\n")
    tracemalloc.start()
    try:
        assert sum(len(entry.data) for entry in AccuracyLog(log, 24).entries()) == 24 * size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * size  # two buffers of 4 x size and what is decoded; the log is 48 x


def test_a_line_without_end_is_not_read_to_its_end(log):
    log.write_bytes(b"[\n")
    with log.open("r+b") as file:
        file.truncate(20 * LONGEST)  # sparse: zeros, as a crashed machine leaves them
    tracemalloc.start()
    try:
        assert line_of_fault(log) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * LONGEST


def test_no_thread_outlives_an_early_end(big, log):
    log.write_bytes(big[0])
    before = threading.active_count()
    entries = AccuracyLog(log).entries()
    next(entries)
    assert threading.active_count() == before + 1
    entries.close()
    assert threading.active_count() == before


def test_no_thread_outlives_a_fault(big, log):
    content, _, offsets = big
    log.write_bytes(content[: offsets[2]] + b"of another kind\n" + content[offsets[2] :])
    before = threading.active_count()
    with pytest.raises(AssetError) as caught:
        read(log)
    assert threading.active_count() == before, "while the error is still at hand"
    assert caught.value.parts["from"] == f"{log}:3"
