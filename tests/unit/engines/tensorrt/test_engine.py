"""The engine at run time over a stand-in for TensorRT (tests/support/stand_in_tensorrt.py), which runs ONNX files on
the CPU: that plans are found, checked, bound and run as asked; nothing of TensorRT itself."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import stand_in_tensorrt
import torch

from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.registry import create_engine
from sdxl_engine.engines.tensorrt import find
from sdxl_engine.engines.tensorrt.entry import ENTRY
from sdxl_engine.engines.tensorrt.generate import plan_key
from sdxl_engine.engines.tensorrt.gpu import Gpu
from sdxl_engine.engines.tensorrt.library import load
from sdxl_engine.engines.tensorrt.names import PlanSet
from sdxl_engine.engines.tensorrt.target import target_of
from sdxl_engine.errors import AssetError, EngineError, UnavailableError
from sdxl_engine.export.exported import exported_networks
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.spec import CACHED_FEATURES, NETWORKS, ONNX_FOLDERS

STREAM = 4711
GPU = Gpu("NVIDIA H200", "9.0", 1)
# Those that import TensorRT when they are imported.
LOADED = [f"sdxl_engine.engines.tensorrt.{name}" for name in ("api", "messages", "engine")]


@pytest.fixture
def stand_in(monkeypatch):
    """The stand-in as the module `tensorrt`, and a GPU that is the CPU."""
    for name in LOADED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_tensorrt)
    monkeypatch.setattr(find, "find_gpu", lambda _: GPU)
    engine = importlib.import_module("sdxl_engine.engines.tensorrt.engine")
    monkeypatch.setattr(engine, "use_gpu", lambda _: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=STREAM))
    stand_in_tensorrt.LOG.clear()
    yield engine
    for name in LOADED:
        sys.modules.pop(name, None)


@pytest.fixture
def request_for(bundle, spec, tmp_path, build_dir, monkeypatch):
    """A request whose exports are those of the other tests and whose plans are its own."""

    def make(**changes):
        monkeypatch.setattr(
            find, "exported_networks", lambda c, s, _, p, opt: exported_networks(c, s, build_dir / "engines", p, opt)
        )
        values = {"checkpoint": bundle, "spec": spec, "cache": tmp_path / "engines", "model_opt": "DeepCache"}
        return EngineRequest(**values | {"precision": "fp32", "batch_size": 3, "device": "cpu"} | changes)

    return make


@pytest.fixture
def write_plans(stand_in, write_plan, build_dir):
    """Write the five plans that a request needs."""

    def write(request, images=None):
        images = images or request.batch_size
        library = load()
        target = target_of(library, GPU)
        onnx = exported_networks(request.checkpoint, request.spec, build_dir / "engines", request.precision)
        plans = PlanSet(request.cache, request.checkpoint, "Offline", request.model_opt)
        written = {}
        for network in NETWORKS:
            key = plan_key(request.spec, onnx, network, request.precision, images, library, target)
            file = plans.folder(target.system) / plans.file_name(network, images, key.precision)
            content = stand_in_tensorrt.make_plan(network, onnx / ONNX_FOLDERS[network] / "model.onnx", key.rows)
            written[network] = write_plan(content, plan=file, key=key)
        return written

    return write


def random_buffers(engine, images, seed=0):
    """Buffers of all networks by network and name; those of the UNets are shared, as the pipeline shares them."""
    generator = torch.Generator().manual_seed(seed)
    step, found = {}, {}
    for network, interface in engine.networks.items():
        own = step if "unet" in network else {}
        for name, tensor in (interface.inputs | interface.outputs).items():
            shape, dtype = tensor.at(interface.rows(images)), getattr(torch, tensor.dtype)
            if tensor.dtype == "int32":
                own[name] = torch.full(shape, 636, dtype=dtype)  # end of text
                own[name][:, :9] = torch.randint(1, 600, (shape[0], 9), generator=generator, dtype=dtype)
            elif name == "timestep":
                own[name] = torch.tensor([651.0])
            elif name in interface.outputs:
                own[name] = torch.full(shape, float("nan"), dtype=dtype)
            elif name not in own:
                own[name] = torch.randn(shape, generator=generator).to(dtype)
        found[network] = own
    return found


@pytest.mark.parametrize("images", [3, 1])
def test_plans_run_on_the_callers_buffers(stand_in, request_for, write_plans, bundle, images):
    """A full and a ragged batch, through all five networks, cached features in place, on torch's current stream."""
    request = request_for()
    write_plans(request)
    engine = create_engine(ENTRY, request)
    buffers = random_buffers(engine, images)
    modules = load_networks(bundle)
    for network in NETWORKS:
        engine.bind(network, buffers[network])()
        interface = engine.networks[network]
        with torch.inference_mode():
            wanted = modules[network](*(buffers[network][name] for name in interface.inputs))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for name, expected in zip(interface.outputs, wanted, strict=True):
            torch.testing.assert_close(buffers[network][name], expected, rtol=1e-3, atol=1e-4)
    assert [(network, STREAM) for network in NETWORKS] == stand_in_tensorrt.LOG


def test_cached_features_are_passed_in_place(stand_in, request_for, write_plans):
    request = request_for()
    write_plans(request)
    engine = create_engine(ENTRY, request)
    step = random_buffers(engine, 1)["unet"]
    addresses = {name: step[name].data_ptr() for name in CACHED_FEATURES}
    deep, shallow = engine.bind("unet", step), engine.bind("shallow_unet", step)
    deep()
    full = step["latent"].clone()
    shallow()  # same sample and timestep: the shallow pass on fresh features is the full UNet
    torch.testing.assert_close(step["latent"], full, rtol=1e-4, atol=1e-4)
    assert addresses == {name: step[name].data_ptr() for name in CACHED_FEATURES}


def test_one_block_of_memory_is_shared_and_given_back(stand_in, request_for, write_plans):
    request = request_for()
    plans = write_plans(request)
    engine = create_engine(ENTRY, request)
    size = sum(plan.stat().st_size for plan in plans.values())
    assert engine.memory().device == size + max(stand_in_tensorrt.SCRATCH_BYTES.values())
    engine.close()
    engine.close()
    assert engine.memory().device == 0


def test_what_it_declares(stand_in, request_for, write_plans):
    request = request_for(precision="fp16", batch_size=2)
    write_plans(request)
    engine = create_engine(ENTRY, request)
    assert (engine.capabilities.precision, engine.capabilities.most_images) == ("fp16", 2)
    assert engine.networks["unet"].outputs["latent"].dtype == "float16"
    images = random_buffers(engine, 2)["vae"]
    engine.bind("vae", images)()
    assert np.isfinite(images["images"].float().numpy()).all()
    with pytest.raises(EngineError, match="larger than the engine tensorrt was made for"):
        engine.bind("vae", random_buffers(engine, 3)["vae"])


def test_the_smallest_plan_that_is_large_enough_is_taken(stand_in, request_for, write_plans):
    request = request_for()
    for images in (2, 8, 4):
        write_plans(request, images)
    assert {plan.name.split("-gpu-")[1].split("-")[0] for plan in find.find_plans(request).values()} == {"b4"}


def test_a_missing_plan_is_refused_with_the_command_that_builds_it(stand_in, request_for):
    with pytest.raises(AssetError, match="a TensorRT plan is missing") as caught:
        create_engine(ENTRY, request_for(precision="fp16"))
    assert "H200x1/stable-diffusion-xl-shapes/Offline/stable-diffusion-xl-CLIP-" in caught.value.parts["from"]
    command = "sdxl-engine generate-engines --engine tensorrt --model shapes --model-opt DeepCache --precision fp16"
    assert caught.value.parts["fix"].startswith(f"{command} --batch-size 3 --build-dir ")


def test_a_plan_that_changed_is_refused(stand_in, request_for, write_plans):
    request = request_for()
    plan = write_plans(request)["vae"]
    plan.write_bytes(plan.read_bytes().replace(b"vae", b"clip1"[:3], 1))
    with pytest.raises(AssetError, match="its content has changed"):
        create_engine(ENTRY, request)


def test_plans_for_too_small_a_batch_are_refused(stand_in, request_for, write_plans):
    write_plans(request_for(), images=2)
    with pytest.raises(AssetError, match="too small a profile"):
        create_engine(ENTRY, request_for())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda onnx: b"no plan", "does not load the plan"),
        (lambda onnx: stand_in_tensorrt.make_plan("vae", onnx / "clip1" / "model.onnx", (1, 3, 3)), "other inputs"),
        (lambda onnx: stand_in_tensorrt.make_plan("vae", onnx / "vae" / "model.onnx", (1, 2, 2)), "does not hold"),
    ],
)
def test_a_plan_that_is_not_what_its_manifest_says_is_refused(
    stand_in, request_for, write_plans, write_plan, build_dir, content, says
):
    request = request_for()
    plan = write_plans(request)["vae"]
    onnx = exported_networks(request.checkpoint, request.spec, build_dir / "engines")
    library = load()
    key = plan_key(request.spec, onnx, "vae", "fp32", 3, library, target_of(library, GPU))
    write_plan(content(onnx), plan=plan, key=key)
    with pytest.raises(EngineError, match=says):
        create_engine(ENTRY, request)


def test_without_a_gpu_it_does_not_run(stand_in, request_for, monkeypatch):
    monkeypatch.setattr(find, "find_gpu", lambda _: None)
    with pytest.raises(UnavailableError, match="needs a GPU"):
        create_engine(ENTRY, request_for())


def test_the_entry_says_what_is_missing(monkeypatch):
    entry = importlib.import_module("sdxl_engine.engines.tensorrt.entry")
    monkeypatch.setattr(entry, "installed", lambda: ())
    assert ENTRY.missing == ("tensorrt or tensorrt_rtx",)
    assert ENTRY.precision("auto") == "fp16"
