"""The reader of LoadGen's detail log, on good logs and on each kind of broken one."""

from __future__ import annotations

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.loadgen.logs import read_detail


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


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
