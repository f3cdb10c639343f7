import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from sdxl_engine.child_process import child_environment
from sdxl_engine.engines.cache import MANIFEST, built_at, built_once, check_replaceable
from sdxl_engine.errors import AssetError, UsageError


@pytest.fixture
def build():
    """A builder that counts its calls."""

    def run(folder):
        run.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "model.onnx").write_bytes(b"network")

    run.calls = 0
    return run


def test_the_same_ingredients_are_built_once(tmp_path, build):
    first = built_once(tmp_path, "onnx", {"opset": 18}, build)
    assert built_once(tmp_path, "onnx", {"opset": 18}, build) == first
    assert build.calls == 1


def test_other_ingredients_are_built_anew(tmp_path, build):
    first = built_once(tmp_path, "onnx", {"opset": 18}, build)
    assert built_once(tmp_path, "onnx", {"opset": 19}, build) != first
    assert build.calls == 2


@pytest.mark.parametrize("damage", ["changed", "missing", "foreign", "manifest"])
def test_a_damaged_folder_is_built_again(tmp_path, build, damage):
    folder = built_once(tmp_path, "onnx", {}, build)
    model = folder / "sub" / "model.onnx"
    if damage == "changed":
        model.write_bytes(b"netw0rk")
    elif damage == "missing":
        model.unlink()
    elif damage == "foreign":
        (folder / "extra").write_text("x")
    else:
        (folder / MANIFEST).write_text("{")
    built_once(tmp_path, "onnx", {}, build)
    assert build.calls == 2
    assert model.read_bytes() == b"network"
    assert not (folder / "extra").exists()


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        built_once(tmp_path, "onnx", {}, fail)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_folder_of_its_own_is_built_for_its_ingredients(tmp_path, build):
    target = tmp_path / "models" / "onnx"
    assert built_at(target, {"precision": "fp16"}, build)
    assert not built_at(target, {"precision": "fp16"}, build)
    assert built_at(target, {"precision": "fp32"}, build)
    assert build.calls == 2
    assert json.loads((target / MANIFEST).read_text())["ingredients"] == {"precision": "fp32"}


KILLED = """
import os, pathlib, signal, sys
from sdxl_engine.engines.cache import built_at

def build(folder):
    (folder / "half.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

built_at(pathlib.Path(sys.argv[1]), {}, build)
"""


def test_a_killed_build_is_not_taken_for_whole_and_what_it_left_is_removed(tmp_path, build):
    target = tmp_path / "onnx"
    child = subprocess.run([sys.executable, "-c", KILLED, target], env=child_environment(), check=False)
    assert child.returncode == -signal.SIGKILL
    assert not target.exists()
    assert list(tmp_path.glob("*/half.onnx"))
    assert built_at(target, {}, build)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx", "onnx.lock"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None])
def test_a_full_disk_is_one_clear_error_and_leaves_the_old_folder(tmp_path, build, number):
    def fail(folder):
        (folder / "half.onnx").write_bytes(b"half")
        raise OSError(number, os.strerror(number)) if number else OSError("96 requested and 12 written")

    target = tmp_path / "onnx"
    built_at(target, {"precision": "fp16"}, build)
    with pytest.raises(AssetError, match="could not be written as a whole") as caught:
        built_at(target, {"precision": "fp32"}, fail)
    assert str(target) in str(caught.value)
    assert [path.name for path in target.iterdir() if path.name != MANIFEST] == ["sub"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx", "onnx.lock"]


def test_another_error_of_the_system_keeps_its_name(tmp_path):
    def fail(folder):
        (folder / "none").read_bytes()

    with pytest.raises(FileNotFoundError):
        built_at(tmp_path / "onnx", {}, fail)


def test_only_an_earlier_result_or_an_empty_folder_is_replaced(tmp_path, build):
    target = tmp_path / "out"
    check_replaceable(target, "ONNX export")
    target.mkdir()
    check_replaceable(target, "ONNX export")
    built_at(target, {"what": "ONNX export"}, build)
    check_replaceable(target, "ONNX export")
    with pytest.raises(UsageError, match="holds other files"):
        check_replaceable(target, "preprocessed data")
    (target / MANIFEST).unlink()
    with pytest.raises(UsageError, match="holds other files"):
        check_replaceable(target, "ONNX export")
    with pytest.raises(UsageError, match="holds other files"):
        check_replaceable(target / "sub" / "model.onnx", "ONNX export")
