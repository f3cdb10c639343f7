import pytest
import torch

from sdxl_engine.engines.base import check_buffers
from sdxl_engine.engines.registry import ENGINES, create_engine, resolve_engine
from sdxl_engine.errors import EngineError, UnavailableError, UsageError
from sdxl_engine.models.spec import NETWORKS


@pytest.fixture(scope="module")
def engines(bundle, spec, build_dir):
    made = {name: create_engine(resolve_engine(name), bundle, spec, build_dir / "engines") for name in ENGINES}
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


@pytest.mark.parametrize("name", ENGINES)
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


def test_auto_takes_the_first_that_is_installed(monkeypatch):
    assert resolve_engine("auto").name == "onnxruntime"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert resolve_engine("auto").name == "torch"


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UnavailableError, match="not installed") as caught:
        resolve_engine("onnxruntime")
    assert "pip install 'pytest-sdxl[onnxruntime]'" in str(caught.value)


def test_an_unknown_engine_suggests_the_nearest():
    with pytest.raises(UsageError) as caught:
        resolve_engine("onnxruntim", source="--sdxl-engine")
    assert "did you mean 'onnxruntime'?" in str(caught.value)
    assert "--sdxl-engine" in str(caught.value)
