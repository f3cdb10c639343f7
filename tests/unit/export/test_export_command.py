"""`sdxl-engine export`: what it checks before, and that nothing half-written or wrong is left in the folder's place.

`shapes` is exported once for the whole suite, in float32; the command's own exports are copies of it.
"""

import gc
import json
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_engine.cli import main
from sdxl_engine.engines.cache import MANIFEST, built_at
from sdxl_engine.errors import AssetError, EngineError
from sdxl_engine.export import exported
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export.check import check_network
from sdxl_engine.export.exported import export_checkpoint, exported_networks
from sdxl_engine.models.part_config import PARTS
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS, NetworkSpec, TensorSpec
from sdxl_engine.models.weights import read_weights


@pytest.fixture(scope="module")
def onnx_files(bundle, spec, build_dir):
    return exported_networks(bundle, spec, build_dir / "engines")


@pytest.fixture
def export(onnx_files, tmp_path, monkeypatch):
    """Run the command; copies of the suite's export take the place of new ones."""

    def copied(_checkpoint, _spec, _precision, folder, *_):
        shutil.copytree(onnx_files, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        export.damage(folder)

    def export(*options):
        files = ["--output", str(tmp_path / "out"), "--json", str(tmp_path / "result.json")]
        return main(["export", "--model", "shapes", "--precision", "fp32", "--no-check", *files, *options])

    monkeypatch.setattr(exported, "export_checkpoint", copied)
    export.damage = lambda folder: None
    return export


def test_the_networks_lie_in_the_benchmarks_folders(export, tmp_path, capsys):
    assert export() == 0
    for folder in ONNX_FOLDERS.values():
        assert (tmp_path / "out" / folder / "model.onnx").is_file()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["built"], result["precision"]) == (True, "fp32")
    assert [network["network"] for network in result["networks"]] == list(NETWORKS)
    assert capsys.readouterr().out == f"shapes: exported in fp32, in {tmp_path / 'out'}\n"
    assert export() == 0
    assert "shapes: up to date in fp32" in capsys.readouterr().out


def test_a_network_that_is_not_valid_leaves_nothing(export, tmp_path, capsys):
    export.damage = lambda folder: (folder / "vae" / "model.onnx").write_bytes(b"not ONNX")
    assert export() == 1
    assert "onnx.checker refuses the exported vae" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(export, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert export() == 4
    assert "the output folder holds other files" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--precision", "int8"], "there is no ONNX export in int8"),
        (["--model", "random", "--model-opt", "DeepCachePruned"], "has no pruned UNet"),
    ],
)
def test_what_cannot_be_exported(export, capsys, tmp_path, options, says):
    assert export(*options) == 4
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("network", ["clip1", "shallow_unet"])
def test_exported_networks_compute_what_the_checkpoint_does(onnx_files, bundle, spec, network):
    check = check_network(onnx_files, network, bundle, spec, "fp32", "cpu")
    assert check.errors.keys() == spec.networks[network].outputs.keys()
    assert 0 <= max(check.errors.values()) < 1e-4
    assert check.bytes > 100_000
    assert "onnx.checker passed, off PyTorch by" in check.line


def test_a_wrong_weight_is_found(onnx_files, bundle, spec, tmp_path):
    target = tmp_path / "clip1" / "model.onnx"
    target.parent.mkdir()
    model = onnx.load(onnx_files / "clip1" / "model.onnx")
    weight = next(each for each in model.graph.initializer if list(each.dims) == [64, 256])
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), weight.name))
    onnx.save(model, target)
    with pytest.raises(EngineError, match="the exported clip1 computes something else") as caught:
        check_network(tmp_path, "clip1", bundle, spec, "fp32", "cpu")
    assert "text_embeddings off by" in str(caught.value)


@pytest.fixture
def checkpoint(bundle, tmp_path):
    for part in PARTS:
        shutil.copytree(bundle / part, tmp_path / "checkpoint" / part)
    (tmp_path / "folder").mkdir()
    return tmp_path / "checkpoint"


def test_weights_in_another_dtype_are_refused(checkpoint, spec, tmp_path):
    file = checkpoint / "text_encoder" / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(AssetError, match="the weights of text_encoder are stored in a dtype") as caught:
        export_checkpoint(checkpoint, spec, "fp16", tmp_path / "folder")
    assert "BF16" in str(caught.value)
    assert not list((tmp_path / "folder").iterdir())


def test_too_little_room_is_said_before_anything_is_exported(checkpoint, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(exported.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1 << 20))
    with pytest.raises(AssetError, match="there is no room") as caught:
        export_checkpoint(checkpoint, spec, "fp16", tmp_path / "folder")
    assert "at least 0.02 GB" in str(caught.value)


@contextmanager
def largest_file(size):
    """Files of this process cannot grow beyond `size` bytes: a write fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_weights_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "INLINE_BYTES", 0)
    network = torch.nn.Linear(1024, 1024).requires_grad_(requires_grad=False)
    interface = NetworkSpec({"x": TensorSpec((1024,))}, {"y": TensorSpec((1024,))})

    def build(folder):
        exporter.export_network(network, interface, folder / "n" / "model.onnx")

    with largest_file(2 << 20), pytest.raises(AssetError, match="could not be written as a whole"):
        built_at(tmp_path / "out", {}, build)
    assert [path.name for path in tmp_path.iterdir()] == ["out.lock"]


def test_an_exported_network_is_no_longer_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "INLINE_BYTES", 0)
    save_file({"weight": torch.ones(512, 256), "bias": torch.ones(512)}, tmp_path / "model.safetensors")
    network = torch.nn.Linear(256, 512)
    network.load_state_dict(dict(read_weights(tmp_path, torch.float32)), assign=True)
    network.requires_grad_(requires_grad=False)

    def mapped():
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    assert mapped()
    interface = NetworkSpec({"x": TensorSpec((256,))}, {"y": TensorSpec((512,))})
    exporter.export_network(network, interface, tmp_path / "n" / "model.onnx")
    del network
    gc.collect()
    assert not mapped()
    assert {path.name for path in (tmp_path / "n").iterdir()} == {"model.onnx", "model.onnx.data"}
