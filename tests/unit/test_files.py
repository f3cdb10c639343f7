import json

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.files import folder_written_whole, read_json, write_json, written_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), written_whole(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path):
    target = tmp_path / "out"
    with folder_written_whole(target) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_written_whole(target) as aside:
        (aside / "a").write_text("half")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_broken_json_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(AssetError, match="the manifest is not valid JSON"):
        read_json(path, "the manifest")
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path, "the manifest") == {"a": 1}
