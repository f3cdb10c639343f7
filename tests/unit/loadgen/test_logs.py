"""The readers of LoadGen's logs, on good logs and on each kind of broken one."""

from __future__ import annotations

import re
import tracemalloc

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.loadgen.logs import accuracy_entries, read_detail

GOOD = [
    "[",
    '{ "seq_id" : 0, "qsl_idx" : 2, "data" : "00FF" },',
    '{ "seq_id" : 1, "qsl_idx" : 0, "data" : "0A" },',
    '{ "seq_id" : 2, "qsl_idx" : 1, "data" : "7F" }',
    "]",
]


def write(path, lines, end="\n"):
    path.write_text("\n".join(lines) + end)
    return path


@pytest.fixture
def log(tmp_path):
    return tmp_path / "mlperf_log_accuracy.json"


def test_entries_in_the_order_of_the_log(log):
    assert list(accuracy_entries(write(log, GOOD), 3)) == [(2, b"\x00\xff"), (0, b"\x0a"), (1, b"\x7f")]


def test_empty_list_is_a_whole_log_of_no_samples(log):
    assert list(accuracy_entries(write(log, ["[", "]"]))) == []
    with pytest.raises(AssetError, match="samples were not answered"):
        list(accuracy_entries(log, 1))


@pytest.mark.parametrize(
    ("line", "replacement", "says"),
    [
        (1, "{", "an opening bracket"),
        (2, '{ "seq_id" : 0, "qsl_idx" : 2, "data" : "00', "corrupt or cut off"),
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
        list(accuracy_entries(write(log, lines), 3))
    at = line + (line == 4 and replacement.endswith('7F" },')) + (replacement == "]\n[")
    assert caught.value.parts["from"] == f"{log}:{at}"
    assert says in str(caught.value)


@pytest.mark.parametrize("size", range(1, len("\n".join(GOOD))))
def test_log_cut_off_anywhere_is_an_error(log, size):
    log.write_bytes(write(log, GOOD).read_bytes()[:size])
    with pytest.raises(AssetError) as caught:
        list(accuracy_entries(log))
    assert re.search(r"json:\d$", caught.value.parts["from"])


def test_missing_samples_are_listed(log):
    with pytest.raises(AssetError, match="samples were not answered") as caught:
        list(accuracy_entries(write(log, GOOD), 5))
    assert caught.value.parts["got"] == "3 responses; missing: qsl_idx 3, 4"


@pytest.mark.parametrize("content", [None, ""])
def test_no_log_or_an_empty_one(log, content):
    if content is not None:
        log.write_text(content)
    with pytest.raises(AssetError, match=r"missing|cut off"):
        list(accuracy_entries(log))


def test_memory_is_that_of_one_entry(log):
    size = 1 << 20
    with log.open("w") as file:
        file.write("[\n")
        for index in range(12):
            comma = "," if index < 11 else ""
            file.write(f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "{"AB" * size}" }}{comma}\n')
        file.write("]\n")
    tracemalloc.start()
    try:
        assert sum(len(data) for _, data in accuracy_entries(log, 12)) == 12 * size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * size  # one entry is 1 x size as bytes and 2 x as text; twelve would be 36 x


def line(key, value, error="false"):
    return f':::MLLOG {{"key": "{key}", "value": {value}, "time_ms": 1.5, "metadata": {{"is_error": {error}}}}}'


def test_detail_log(tmp_path):
    lines = [
        line("effective_a", 1),
        "not of LoadGen",
        line("effective_a", 2),
        line("b", '"text"'),
        line("error_runtime", '"bad"', "true"),
    ]
    log = read_detail(write(tmp_path / "detail.txt", lines))
    assert dict(log) == {"effective_a": 2, "b": "text", "error_runtime": "bad"}
    assert log.every("effective_a") == [1, 2]
    assert log.effective == {"a": 2}
    assert log.errors == ("error_runtime: bad",)


@pytest.mark.parametrize("broken", [line("b", 2)[:-7], ':::MLLOG {"key": "b"}', ":::MLLOG 3"])
def test_corrupt_detail_log_is_named_by_line(tmp_path, broken):
    path = write(tmp_path / "detail.txt", [line("a", 1), broken, line("c", 3)])
    with pytest.raises(AssetError, match="detail log is corrupt") as caught:
        read_detail(path)
    assert caught.value.parts["from"] == f"{path}:2"


def test_missing_detail_log(tmp_path):
    with pytest.raises(AssetError, match="detail log is missing"):
        read_detail(tmp_path / "detail.txt")
