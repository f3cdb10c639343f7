"""The networks as engine `cuda` writes them out, with torch in the kernels' place, against engine `torch` in fp32."""

import dataclasses

import numpy as np
import pytest
import torch
import torch_kernels
from image_distance import psnr
from small_sdxl import small_configs

from sdxl_engine.assets.tokens import TokenTable
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.cuda.engine import CudaEngine
from sdxl_engine.engines.cuda.precision import scales_of
from sdxl_engine.engines.torch_engine import TorchEngine
from sdxl_engine.models.full_size import make_random_checkpoint, new_part
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.pruned import PRUNED
from sdxl_engine.models.spec import CACHED_FEATURES, read_spec
from sdxl_engine.pipeline import Pipeline
from sdxl_engine.schedule import euler_schedule

ROWS, STEPS = 2, 4
TEXT = 77
WIDTHS = {"block_out_channels": (32, 64, 96), "transformer_layers_per_block": (1, 1, 2)}


@pytest.fixture(scope="module", autouse=True)
def stand_ins():
    with pytest.MonkeyPatch.context() as patch:
        torch_kernels.install(patch)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights, with a pruned UNet of other ones and fewer transformer layers."""
    folder = make_random_checkpoint(tmp_path_factory.mktemp("small"), small_configs(**WIDTHS))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = new_part("unet", small_configs(**WIDTHS | {"transformer_layers_per_block": (1, 1, 1)})["unet"])
    other.half().save_pretrained(folder / PRUNED)
    return folder


@pytest.fixture(scope="module")
def request_of(checkpoint):
    def make(precision, model_opt="NoOpt"):
        return EngineRequest(
            checkpoint=checkpoint,
            spec=read_spec(checkpoint),
            cache=checkpoint,
            precision=precision,
            model_opt=model_opt,
            batch_size=ROWS,
        )

    return make


def ours(request, **options):
    return CudaEngine(request, compute=torch_kernels.TorchCompute(), **options)


@pytest.fixture(scope="module")
def engines(request_of):
    """In fp32, in fp16 by the plain modules, and this one."""
    fp16 = request_of("fp16")
    return {
        "fp32": TorchEngine(request_of("fp32")),
        "plain": TorchEngine(dataclasses.replace(fp16, spec=dataclasses.replace(fp16.spec, upcast_decoder=False))),
        "ours": ours(fp16),
    }


def buffers_for(engine, network, seed=1, scale=1.0):
    """Random inputs, the same for every engine but for their precision; outputs full of NaN."""
    generator = torch.Generator().manual_seed(seed)
    interface = engine.networks[network]
    buffers = {}
    for name, spec in interface.inputs.items():
        shape = spec.at(ROWS)
        values = torch.randn(shape, generator=generator).half().float() * scale
        if name == "timestep":
            values = torch.tensor([981.0])
        elif name == "time_ids":
            values = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(shape)
        elif name == "input_ids":
            values = torch.randint(0, 1000, shape, generator=generator)
        buffers[name] = values.to(getattr(torch, spec.dtype)).contiguous()
    for name, spec in interface.outputs.items():
        buffers[name] = torch.full(spec.at(ROWS), torch.nan, dtype=getattr(torch, spec.dtype))
    return buffers


def outputs(engine, network, **inputs):
    buffers = buffers_for(engine, network, **inputs)
    engine.bind(network, buffers)()
    return {name: buffers[name].double() for name in engine.networks[network].outputs}


def off(got, exact):
    """Norm of the difference over the norm of what is exact."""
    return float((got - exact).norm() / exact.norm())


@pytest.mark.parametrize("network", ["unet", "shallow_unet", "clip1", "clip2"])
def test_a_network_is_no_further_from_fp32_than_the_plain_one_in_fp16(network, engines):
    results = {name: outputs(engine, network) for name, engine in engines.items()}
    for name, exact in results["fp32"].items():
        error, plain = (off(results[which][name], exact) for which in ("ours", "plain"))
        # A third of it for chance: both are sums of many roundings of 2**-11.
        assert 0 < error <= plain * 4 / 3, f"{name}: {error:.2e}, plain fp16 {plain:.2e}"
        assert error < 2.0**-8


@pytest.fixture(scope="module")
def loud_decoders(request_of):
    """Decoders whose first convolution makes activations of a hundred thousand, by engine."""

    def networks(dtype):
        made = load_networks(request_of("fp16").checkpoint, dtype)
        made["vae"].decoder.conv_in.weight *= 30.0
        made["vae"].decoder.conv_in.bias *= 30.0
        return made

    fp16, plain = request_of("fp16"), request_of("fp16")
    assert fp16.spec.upcast_decoder
    plain = dataclasses.replace(plain, spec=dataclasses.replace(plain.spec, upcast_decoder=False))
    return {
        "fp32": TorchEngine(request_of("fp32"), networks(torch.float32)),
        "plain": TorchEngine(plain, networks(torch.float16)),
        "ours": ours(fp16, networks=networks(torch.float16)),
        "ours, not upcast": ours(plain, networks=networks(torch.float16)),
    }


def test_a_decoder_that_leaves_the_range_of_fp16_stays_right(loud_decoders):
    loud = {name: outputs(engine, "vae", scale=6000.0)["images"] for name, engine in loud_decoders.items()}
    assert loud["fp32"].isfinite().all()
    assert not loud["plain"].isfinite().all()
    assert not loud["ours, not upcast"].isfinite().all()
    assert off(loud["ours"], loud["fp32"]) < 2.0**-8


def test_a_decoder_within_the_range_is_as_exact_either_way(engines, request_of):
    plain = request_of("fp16")
    not_upcast = ours(dataclasses.replace(plain, spec=dataclasses.replace(plain.spec, upcast_decoder=False)))
    exact = outputs(engines["fp32"], "vae")["images"]
    limit = off(outputs(engines["plain"], "vae")["images"], exact) * 4 / 3
    for engine in (engines["ours"], not_upcast):
        assert 0 < off(outputs(engine, "vae")["images"], exact) <= limit


def step_buffers(engine):
    buffers = buffers_for(engine, "unet") | buffers_for(engine, "shallow_unet", seed=2)
    return buffers | {name: torch.full_like(buffers[name], torch.nan) for name in CACHED_FEATURES}


def denoised(engine, deep, shared):
    """The noise of every step, from steps that share work or from the networks one by one."""
    buffers = step_buffers(engine)
    timesteps = [981.0, 731.0, 481.0, 231.0]
    steps = engine.bind_steps(buffers, timesteps) if shared else None
    run = {name: engine.bind(name, buffers) for name in ("unet", "shallow_unet")}
    noises = []
    if steps is not None:
        steps.begin()
    for step, timestep in enumerate(timesteps):
        buffers["timestep"].fill_(timestep)
        if steps is not None:
            (steps.deep if step in deep else steps.shallow)(step)
        else:
            run["unet" if step in deep else "shallow_unet"]()
        noises.append(buffers["latent"].double().clone())
        buffers["sample"].copy_(buffers["sample"] - 0.3 * buffers["latent"])
    if steps is not None:
        steps.end()
    return noises


@pytest.mark.parametrize(
    ("model_opt", "deep"),
    [("NoOpt", {0, 1, 2, 3}), ("DeepCache", {0, 2}), ("DeepCache", {0}), ("DeepCachePruned", {0, 2})],
    ids=str,
)
def test_steps_that_share_work_give_what_the_networks_give(model_opt, deep, request_of):
    engine = ours(request_of("fp16", model_opt))
    shared, single = (denoised(engine, deep, way) for way in (True, False))
    for step, (one, other) in enumerate(zip(shared, single, strict=True)):
        assert torch.equal(one, other), f"step {step}: {off(one, other):.2e}"
    exact = denoised_by_torch(request_of("fp32", model_opt), deep)
    assert all(off(one, other) < 2.0**-7 for one, other in zip(shared, exact, strict=True))


def denoised_by_torch(request, deep):
    return denoised(TorchEngine(request), deep, shared=False)


def test_shallow_steps_after_a_pruned_deep_one_run_the_full_unets_outer_level(request_of):
    """The pruned UNet's own outermost level has other weights: with it, shallow steps are far off."""
    pruned, full = (denoised_by_torch(request_of("fp32", opt), {0, 2}) for opt in ("DeepCachePruned", "DeepCache"))
    assert all(off(one, other) > 0.1 for one, other in zip(pruned, full, strict=True))
    engine = ours(request_of("fp16", "DeepCachePruned"))
    engine._loaded = dataclasses.replace(engine._loaded, shallow=engine._loaded.deep.outer)
    wrong = denoised(engine, {0, 2}, shared=True)
    assert off(wrong[1], pruned[1]) > 0.1


def drawn(engine, deep):
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(0, 1000, (rows, TEXT), generator=generator, dtype=torch.int32) for rows in (3, 3, 1, 1)]
    latent = torch.randn(1, 4, 8, 8, generator=generator)
    pipeline = Pipeline(engine, euler_schedule(STEPS), deep, TokenTable(*ids), latent, ROWS)
    return pipeline.generate(np.array([2, 0]))


@pytest.mark.parametrize("deep", [{0, 1, 2, 3}, {0, 2}], ids=["NoOpt", "DeepCache"])
def test_a_pipeline_draws_the_same_images(deep, engines):
    expected = drawn(engines["fp32"], deep)
    assert expected.std() > 1
    assert psnr(drawn(engines["ours"], deep), expected).min() >= 50


def snr(got, exact):
    """Signal to noise, dB."""
    return -20 * float(np.log10(off(got, exact)))


@pytest.fixture(scope="module")
def in_fp8(request_of):
    """With scales from what the layers of the fp16 engine saw."""
    seen = {}
    measuring = ours(request_of("fp16"), seen=seen)
    for network in ("unet", "shallow_unet", "vae"):
        outputs(measuring, network)
    scales = scales_of(seen)
    assert len(scales["unet"]) > 40
    return ours(request_of("fp16"), scales=scales)


@pytest.mark.parametrize(("network", "least"), [("unet", 17), ("shallow_unet", 20), ("vae", 12)])
def test_fp8_keeps_a_stated_distance_from_fp16(network, least, in_fp8, engines):
    """Every layer's noise, 21 to 30 dB below the decoder's images, adds to that of the others: 17 make 13.8 dB."""
    fp8, fp16 = outputs(in_fp8, network), outputs(engines["ours"], network)
    for name, exact in fp16.items():
        assert least <= snr(fp8[name], exact) < 60, f"{name}: {snr(fp8[name], exact):.1f} dB"


@pytest.mark.parametrize("layer", ["up_blocks.0.resnets.1.conv1", "up_blocks.1.upsamplers.0.conv"])
def test_one_layer_in_fp8_makes_the_noise_of_its_roundings(layer, request_of, engines):
    """Rounding to fp8 makes 2.6e-2 of a tensor's norm, of weights and inputs 3.7e-2, 29 dB below.

    A norm that follows takes the mean away, and so more of the signal than of the noise.
    """
    seen = {}
    outputs(ours(request_of("fp16"), seen=seen), "vae")
    name = f"decoder.{layer}"
    one = ours(request_of("fp16"), scales={"vae": {name: scales_of(seen)["vae"][name]}})
    assert 20 <= snr(outputs(one, "vae")["images"], outputs(engines["ours"], "vae")["images"]) < 40
