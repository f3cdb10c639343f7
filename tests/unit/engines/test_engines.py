import dataclasses
from types import SimpleNamespace

import pytest
import torch

from sdxl_engine.engines.base import Capabilities, EngineRequest, check_buffers, with_floats
from sdxl_engine.engines.registry import ENGINES, EngineEntry, create_engine, resolve_engine
from sdxl_engine.errors import EngineError, UnavailableError, UsageError
from sdxl_engine.models.spec import NETWORKS

ON_CPU = [name for name, entry in ENGINES.items() if "cpu" in entry.devices]


@pytest.fixture(scope="module")
def engines(bundle, spec, build_dir):
    request = EngineRequest(checkpoint=bundle, spec=spec, cache=build_dir / "engines")
    made = {name: create_engine(resolve_engine(name), request) for name in ON_CPU}
    yield made
    for engine in made.values():
        engine.close()


def random_buffers(spec, network, images, seed):
    generator = torch.Generator().manual_seed(seed)
    interface = spec.networks[network]
    rows = interface.rows(images)
    buffers = {}
    for name, tensor in interface.inputs.items():
        if tensor.dtype == "int32":
            ids = torch.randint(1, 600, tensor.at(rows), generator=generator, dtype=torch.int32)
            ids[:, 20:] = 636  # end of text, then padding
            buffers[name] = ids
        elif name == "timestep":
            buffers[name] = torch.tensor([651.0])
        else:
            buffers[name] = torch.randn(tensor.at(rows), generator=generator)
    for name, tensor in interface.outputs.items():
        buffers[name] = torch.full(tensor.at(rows), float("nan"))  # every element must be written
    return buffers


@pytest.mark.parametrize("images", [1, 3, 8])
@pytest.mark.parametrize("network", NETWORKS)
def test_onnxruntime_computes_what_torch_computes(engines, spec, network, images):
    reference = random_buffers(spec, network, images, seed=images)
    buffers = random_buffers(spec, network, images, seed=images)
    engines["torch"].bind(network, reference)()
    engines["onnxruntime"].bind(network, buffers)()
    for name in spec.networks[network].outputs:
        error = (buffers[name] - reference[name]).norm() / reference[name].norm()
        assert float(error) < 2e-5, f"{network}, output {name}: relative error {float(error):.2e}"


@pytest.mark.parametrize("name", ON_CPU)
def test_cached_features_are_passed_in_place(engines, spec, name):
    """The shallow UNet reads the very memory that the deep one wrote, so the two bindings need no copy between them."""
    engine = engines[name]
    buffers = random_buffers(spec, "unet", 1, seed=3)
    step = buffers | {"latent": torch.empty_like(buffers["sample"])}
    deep, shallow = engine.bind("unet", step), engine.bind("shallow_unet", step)
    deep()
    full = step["latent"].clone()
    shallow()  # same sample and timestep: the shallow pass on fresh features is the full UNet
    torch.testing.assert_close(step["latent"], full, rtol=1e-4, atol=1e-5)
    step["up.1.sample"].zero_()
    shallow()
    assert not torch.allclose(step["latent"], full, atol=1e-2), "the shallow UNet does not read the shared buffer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("sample"), "missing"),
        (lambda b: b.update(sample=b["sample"].double()), "float64"),
        (lambda b: b.update(sample=b["sample"][:, :2].contiguous()), "(2, 2, 16, 16)"),
        (lambda b: b.update(sample=b["sample"].permute(0, 1, 3, 2)), "strided"),
        (lambda b: b.update(time_ids=b["time_ids"][:1]), "'time_ids'"),
    ],
)
def test_buffers_that_do_not_fit_are_named(engines, spec, change, message):
    buffers = random_buffers(spec, "unet", 1, seed=0)
    change(buffers)
    with pytest.raises(EngineError) as caught:
        check_buffers(engines["torch"], "unet", buffers)
    assert message in str(caught.value)


def test_a_batch_above_what_the_engine_declares_is_refused(engines, spec, monkeypatch):
    monkeypatch.setattr(engines["torch"], "capabilities", Capabilities(precision="fp32", most_images=2))
    with pytest.raises(EngineError, match="larger than the engine torch was made for") as caught:
        check_buffers(engines["torch"], "unet", random_buffers(spec, "unet", 3, seed=0))
    assert "6 rows" in str(caught.value)
    assert "at most 4, for 2 images" in str(caught.value)


def test_half_precision_keeps_the_timestep(spec):
    networks = with_floats(spec.networks, "float16")
    dtypes = {name: tensor.dtype for name, tensor in networks["unet"].inputs.items()}
    assert dtypes.pop("timestep") == "float32"
    assert set(dtypes.values()) == {"float16"}
    assert networks["clip1"].inputs["input_ids"].dtype == "int32"
    assert networks["unet"].rows(3) == 6


def test_torch_runs_in_half_precision(bundle, spec, engines, build_dir):
    request = EngineRequest(checkpoint=bundle, spec=spec, cache=build_dir / "engines", precision="bf16")
    half = create_engine(resolve_engine("torch"), request)
    wanted = random_buffers(spec, "clip2", 2, seed=5)
    engines["torch"].bind("clip2", wanted)()
    buffers = {
        name: torch.zeros_like(buffer, dtype=torch.bfloat16 if buffer.is_floating_point() else None)
        for name, buffer in wanted.items()
    }
    buffers["input_ids"].copy_(wanted["input_ids"])
    half.bind("clip2", buffers)()
    reached, asked = buffers["text_embeddings"].float(), wanted["text_embeddings"]
    error = float((reached - asked).norm() / asked.norm())
    assert 1e-4 < error < 3e-2
    half.close()


def test_a_decoder_that_overflows_in_half_precision_stays_in_single(bundle, spec, build_dir):
    spec = dataclasses.replace(spec, upcast_decoder=True)
    request = EngineRequest(checkpoint=bundle, spec=spec, cache=build_dir / "engines", precision="fp16")
    engine = create_engine(resolve_engine("torch"), request)
    assert engine.networks["vae"].inputs["latent"].dtype == "float32"
    assert engine.networks["unet"].inputs["sample"].dtype == "float16"
    buffers = random_buffers(spec, "vae", 1, seed=0)
    engine.bind("vae", buffers)()
    assert buffers["images"].isfinite().all()


def test_memory_is_the_weights_once_and_nothing_after_close(bundle, spec, build_dir):
    engine = create_engine(
        resolve_engine("torch"), EngineRequest(checkpoint=bundle, spec=spec, cache=build_dir / "engines")
    )
    held = engine.memory()
    stored = sum(
        path.stat().st_size for path in bundle.rglob("*.safetensors") if not {"metrics", "unet_pruned"} & {*path.parts}
    )
    # Stored in float16 and held in float32; of the autoencoder, the decoder alone.
    assert 1.8 * stored < held.host < 2 * stored
    assert held.device == 0
    engine.close()
    engine.close()
    assert engine.memory().host == 0


def test_auto_takes_the_first_that_is_installed(monkeypatch):
    assert resolve_engine("auto").name == "onnxruntime"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert resolve_engine("auto").name == "torch"


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UnavailableError, match="not installed") as caught:
        resolve_engine("onnxruntime")
    assert "pip install 'pytest-sdxl[onnxruntime]'" in str(caught.value)


def test_a_precision_that_the_engine_lacks_is_refused():
    entry = resolve_engine("onnxruntime")
    assert entry.precision("auto") == "fp32"
    with pytest.raises(UsageError, match="does not run in fp16") as caught:
        entry.precision("fp16", source="--sdxl-precision")
    assert caught.value.parts["expected"] == "fp32 or int8 or fp8"


def test_a_device_is_chosen_among_those_that_are_here(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert resolve_engine("torch").device("auto") == "cpu"
    with pytest.raises(UsageError, match="does not run there"):
        resolve_engine("onnxruntime").device("cuda")
    with pytest.raises(UnavailableError, match="needs a GPU that is not here"):
        resolve_engine("torch").device("cuda")
    with pytest.raises(UnavailableError, match="0 GPUs"):
        EngineEntry(name="fast", factory="fast:create", devices=("cuda",)).device("auto")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert resolve_engine("torch").device("auto") == "cuda"
    assert resolve_engine("torch").device("cuda:1") == "cuda:1"
    with pytest.raises(UnavailableError, match="2 GPUs"):
        resolve_engine("torch").device("cuda:2")


def test_an_unknown_engine_suggests_the_nearest():
    with pytest.raises(UsageError) as caught:
        resolve_engine("onnxruntim", source="--sdxl-engine")
    assert "did you mean 'onnxruntime'?" in str(caught.value)
    assert "--sdxl-engine" in str(caught.value)


def test_auto_takes_an_engine_for_gpus_where_there_is_one(monkeypatch):
    gpu = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr("sdxl_engine.systems.machine.detect", lambda environ: SimpleNamespace(gpus=(gpu,)))
    found = SimpleNamespace(origin="somewhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorrt" else found)
    assert resolve_engine("auto").name == "cuda", "TensorRT-RTX builds plans; it is not an engine to run with"
    gpu.compute_capability = (8, 9)
    assert resolve_engine("auto").name == "torch", "the engine cuda has no kernels for this GPU"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    assert resolve_engine("auto").name == "tensorrt"
