"""When an engine that was built is built again. Neither measuring nor the networks are under test here: no GPU."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.cache import MANIFEST
from sdxl_engine.engines.cuda import built, kernels
from sdxl_engine.files import write_json
from sdxl_engine.models.part_config import PARTS

CHOICES = {"some product": {"gpu": "H200"}}


@pytest.fixture
def folders(monkeypatch):
    """Where each building took place."""
    found = []

    def build(_request, _drawn, folder):
        found.append(folder)
        write_json(folder / built.CHOICES, CHOICES)

    monkeypatch.setattr(built, "_build", build)
    monkeypatch.setattr(built, "CudaEngine", lambda _request, *, compute, scales: compute)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H200")
    return found


@pytest.fixture
def load(folders, tmp_path):
    """Load the engine; what its products and convolutions were given."""
    for part in PARTS:
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")

    def call(**changes):
        values = {"checkpoint": tmp_path, "spec": None, "cache": tmp_path / "engines", "precision": "fp16"} | changes
        return built.create(EngineRequest(**values))

    return call


def test_what_was_built_is_loaded_again(load, folders):
    assert load()._choices == load()._choices == CHOICES
    assert len(folders) == 1


def test_what_another_version_of_the_package_built_is_stale(load, folders, monkeypatch, tmp_path):
    load()
    monkeypatch.setattr(built, "__version__", "0.0.9")
    load()
    load()
    assert len(folders) == 2
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "engines").glob(f"*/{MANIFEST}")]
    assert "0.0.9" in {manifest["ingredients"]["version"] for manifest in manifests}


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """A copy of the kernels' source, in the place of the package's."""
    copy = tmp_path / "kernels"
    shutil.copytree(Path(kernels.__file__).parent, copy)
    monkeypatch.setattr(kernels, "__file__", str(copy / "__init__.py"))
    return copy


def test_what_other_kernels_were_built_with_is_stale(load, folders, sources):
    load()
    with (sources / "conv3x3.py").open("a") as file:
        file.write("# another tile\n")
    load()
    assert len(folders) == 2
    (sources / "one_more.py").write_text("")
    load()
    assert len(folders) == 3


def test_bytecode_and_the_place_of_the_kernels_do_not_matter(load, folders, sources, monkeypatch, tmp_path):
    load()
    (sources / "__pycache__").mkdir(exist_ok=True)
    (sources / "__pycache__" / "conv3x3.cpython-312.pyc").write_bytes(b"compiled")
    load()
    monkeypatch.setattr(kernels, "__file__", str(sources.rename(tmp_path / "moved") / "__init__.py"))
    load()
    assert len(folders) == 1


@pytest.mark.parametrize("changes", [{"batch_size": 4}, {"model_opt": "DeepCache"}], ids=str)
def test_another_request_is_built_anew(load, folders, changes):
    load()
    load(**changes)
    assert len(folders) == 2
