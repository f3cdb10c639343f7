"""An engine in int8 of a checkpoint that is not `shapes`: a small SDXL with random weights."""

import shutil

import numpy as np
import pytest
import torch
from small_sdxl import small_configs

from sdxl_engine.assemble import open_pipeline
from sdxl_engine.assets.captions import write_captions
from sdxl_engine.errors import UsageError
from sdxl_engine.export.calibration_set import calibration_set
from sdxl_engine.export.quantised import quantise
from sdxl_engine.export.ranges import measured_ranges
from sdxl_engine.export.recipes import INT8
from sdxl_engine.models.full_size import LATENT, make_random_checkpoint
from sdxl_engine.models.load import load_network
from sdxl_engine.models.spec import read_spec
from sdxl_engine.settings import RunSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two of 34 captions are scored, so the others are there to measure ranges on."""
    folder = tmp_path_factory.mktemp("small")
    configs = small_configs(block_out_channels=(8, 8, 16), norm_num_groups=4, transformer_layers_per_block=(1, 1, 1))
    checkpoint = make_random_checkpoint(folder, configs)
    data = folder / "build" / "data" / "coco" / "SDXL"
    data.mkdir(parents=True)
    shutil.copyfile(checkpoint / LATENT, data / "latents.npy")
    write_captions(data / "captions_5k_final.tsv", [f"prompt {number}" for number in range(34)], 64)
    return RunSettings(
        model=str(checkpoint), build_dir=folder / "build", engine="onnxruntime", precision="int8", samples=2
    )


@pytest.fixture(scope="module")
def pipeline(settings):
    made = open_pipeline(settings)
    yield made
    made.close()


def outputs(network, buffers, interface):
    with torch.inference_mode():
        return torch.cat([tensor.flatten() for tensor in network(*(buffers[name] for name in interface.inputs))])


def test_it_draws(pipeline):
    images = pipeline.generate(np.arange(2))
    assert images.shape == (2, 64, 64, 3)
    assert images.std() > 0


def test_its_unet_computes_what_the_rounded_layers_do(settings, pipeline):
    checkpoint = settings.build_dir.parent / settings.model
    spec = read_spec(checkpoint)
    interface = spec.networks["unet"]
    generator = torch.Generator().manual_seed(0)
    buffers = {
        name: torch.randn(tensor.at(2), generator=generator)
        for name, tensor in (interface.inputs | interface.outputs).items()
    } | {"timestep": torch.tensor([651.0]), "time_ids": torch.tensor([spec.time_ids] * 2, dtype=torch.float32)}
    pipeline.engine.bind("unet", buffers)()
    ran = torch.cat([buffers[name].flatten() for name in interface.outputs])
    network = load_network(checkpoint, "unet")
    exact = outputs(network, buffers, interface)
    drawn = calibration_set(settings, INT8)
    statistics = measured_ranges(checkpoint, spec, settings.build_dir / "engines", drawn)
    quantise(network.get_submodule("unet"), statistics, INT8)
    rounded = outputs(network, buffers, interface)
    # A value near the middle between two levels goes either way: what is left of the error is of such.
    assert (ran - rounded).norm() < 0.3 * (ran - exact).norm()


def test_a_run_that_scores_all_captions_is_refused_before_anything_is_built(settings):
    more = RunSettings.from_json(settings.to_json() | {"samples": 34})
    with pytest.raises(UsageError, match="no calibration captions for int8") as caught:
        open_pipeline(more)
    assert "score at most 2" in str(caught.value)
