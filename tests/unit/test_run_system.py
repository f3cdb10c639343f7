import dataclasses
from types import SimpleNamespace

import pytest

from sdxl_engine import run_system
from sdxl_engine.assemble import _graphs
from sdxl_engine.engines.base import Capabilities
from sdxl_engine.engines.registry import EngineEntry
from sdxl_engine.errors import UsageError
from sdxl_engine.measure import describe
from sdxl_engine.run_engine import engine_entry, expected_qps, precision_in_effect, run_devices
from sdxl_engine.run_system import batch_size, batch_sizes, run_config, schedule_in_effect, system_of
from sdxl_engine.settings import RunSettings
from tests.support.machines import machine

CONFIG = """
schema = 1
description = "A machine of the test's"
[match]
cpu = true
[defaults]
engine = "torch"
precision = "fp16"
use_graphs = false
gpu_batch_size = { clip1 = 64, clip2 = 64, unet = 4, shallow_unet = 4, vae = 2 }
[Offline.DeepCache]
shallow_unet_steps = 3
offline_expected_qps = 12.5
source = "the test"
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a full-size model on a machine without a GPU that has a file of the user's."""
    folder = tmp_path / "systems"
    folder.mkdir()
    (folder / "mine.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_system._detected.cache_clear()
    return RunSettings(model="random", build_dir=tmp_path, model_opt="DeepCache", test_mode="PerformanceOnly")


def test_a_full_size_model_takes_the_machines_configuration(settings):
    assert system_of(settings).config.name == "mine"
    sizes = {"clip1": 64, "clip2": 64, "unet": 4, "shallow_unet": 4, "vae": 2}
    assert batch_sizes(settings) == sizes, "of files that are built ahead; a run has one batch for all networks"
    assert (batch_size(settings), run_config(settings).offline_expected_qps) == (2, 12.5)
    assert (engine_entry(settings).name, precision_in_effect(settings)) == ("torch", "fp16")
    assert describe(settings)["system"].startswith("mine (")


def test_options_win_over_the_configuration(settings):
    asked = dataclasses.replace(settings, batch_size=5, precision="bf16", engine="onnxruntime")
    assert batch_size(asked) == 5
    assert set(batch_sizes(asked).values()) == {5}
    with pytest.raises(UsageError, match="does not run in bf16"):
        engine_entry(asked)
    asked = dataclasses.replace(asked, engine="torch")
    assert precision_in_effect(asked) == "bf16"


def test_an_engine_without_that_precision_runs_in_its_own(settings, monkeypatch):
    entry = EngineEntry(name="torch", factory="x:y", precisions=("fp32",))
    monkeypatch.setattr("sdxl_engine.run_engine.resolve_engine", lambda name: entry)
    assert precision_in_effect(settings) == "fp32"


@pytest.mark.parametrize(("named", "precision"), [("torch", "fp8"), ("auto", "fp16")])
def test_8_bits_are_for_the_engine_that_the_file_names(settings, monkeypatch, named, precision):
    file = settings.build_dir / "systems" / "mine.toml"
    text = CONFIG.replace('precision = "fp16"', 'precision = "fp8"').replace('engine = "torch"', f'engine = "{named}"')
    file.write_text(text, encoding="utf-8")
    run_system._detected.cache_clear()
    entry = EngineEntry(name="torch", factory="x:y", precisions=("fp16", "fp8"))
    monkeypatch.setattr("sdxl_engine.run_engine.resolve_engine", lambda name: entry)
    assert precision_in_effect(settings) == precision


def test_shapes_runs_the_same_on_every_machine(settings):
    small = dataclasses.replace(settings, model="shapes")
    assert system_of(small) is None
    assert batch_size(small) == 8
    assert set(batch_sizes(small).values()) == {8}
    assert precision_in_effect(small) == "fp32"
    assert "system" not in describe(small)


@pytest.mark.parametrize(
    ("asked", "deep"),
    [
        ({}, "0,4,8,12,16"),
        ({"shallow_steps": 1}, "0,2,4,6,8,10,12,14,16,18"),
        ({"deep_steps": "0,10"}, "0,10"),
        ({"model_opt": "NoOpt"}, "0-19"),
        ({"model": "shapes"}, "0,2,4,6,8,10,12,14,16,18"),
        ({"pipeline": "mine:build"}, "unstated"),
        ({"pipeline": "mine:build", "deep_steps": "0,10"}, "0,10"),
    ],
)
def test_the_schedule_is_the_options_else_the_configurations_else_the_variants(settings, asked, deep):
    asked = dataclasses.replace(settings, **asked)
    assert schedule_in_effect(asked) == deep
    named = describe(asked).get("deep steps")
    assert named == (deep if deep in ("0,4,8,12,16", "0,10") else None)


def test_a_batch_of_none_is_refused():
    with pytest.raises(UsageError, match="at least one sample"):
        RunSettings(batch_size=0).check()


@pytest.mark.parametrize(("asked", "drawn"), [("auto", False), ("on", True), ("off", False)])
def test_graphs_are_the_configurations_unless_asked_for(settings, asked, drawn):
    engine = SimpleNamespace(name="fast", device="cuda:0", capabilities=Capabilities(precision="fp16", capturable=True))
    asked = dataclasses.replace(settings, graphs=asked)
    assert _graphs(asked, engine, run_config(settings)) is drawn


def test_a_run_is_sized_with_the_configurations_figure(settings):
    assert expected_qps(settings) == 12.5
    assert expected_qps(dataclasses.replace(settings, model="shapes")) == 1


@pytest.fixture
def eight_gpus(settings, monkeypatch):
    """A machine with eight H100, whose shipped configuration has all of them."""
    monkeypatch.setattr("sdxl_engine.systems.resolve.detect", lambda environ: machine(count=8))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    run_system._detected.cache_clear()
    yield dataclasses.replace(settings, engine="torch")
    run_system._detected.cache_clear()


@pytest.mark.parametrize(
    ("asked", "devices", "qps"),
    [
        ({}, tuple(f"cuda:{number}" for number in range(8)), 22.816),
        ({"device": "cuda"}, ("cuda",), 22.816 / 8),
        ({"device": "cuda:5,cuda:2"}, ("cuda:5", "cuda:2"), 22.816 / 4),
        ({"pipeline": "mine:build"}, ("auto",), 22.816 / 8),
        ({"pipeline": "mine:build", "device": "cuda:0,cuda:1"}, ("cuda:0", "cuda:1"), 22.816 / 4),
        ({"model": "shapes"}, ("cuda",), 1),
        ({"model": "shapes", "device": "cuda:0,cuda:1"}, ("cuda:0", "cuda:1"), 1),
        ({"model": "shapes", "device": "cpu,cpu"}, ("cpu", "cpu"), 1),
    ],
)
def test_a_run_draws_on_all_gpus_of_the_configuration_or_on_those_named(eight_gpus, asked, devices, qps):
    asked = dataclasses.replace(eight_gpus, **asked)
    asked.check()
    assert run_devices(asked) == devices
    assert expected_qps(asked) == pytest.approx(qps)


def test_a_gpu_that_is_not_here_is_refused_by_name(eight_gpus):
    with pytest.raises(UsageError, match="needs a GPU that is not here") as caught:
        run_devices(dataclasses.replace(eight_gpus, device="cuda:7,cuda:8"))
    assert caught.value.parts["expected"] == "cuda:8"


def test_what_runs_on_one_device_refuses_several(eight_gpus):
    with pytest.raises(UsageError, match="this runs on one device"):
        engine_entry(eight_gpus).device("cuda:0,cuda:1")
