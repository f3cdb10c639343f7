import pytest

from sdxl_engine.engines.cache import MANIFEST, built_once


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
