"""The pipeline against diffusers' own, on the embedded bundle."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from image_distance import psnr

from sdxl_engine.assemble import open_pipeline
from sdxl_engine.assets.captions import read_captions
from sdxl_engine.assets.latents import read_latent
from sdxl_engine.errors import UsageError
from sdxl_engine.models.prompts import GUIDANCE_SCALE, NEGATIVE_PROMPT, STEPS
from sdxl_engine.run_system import BATCH_SIZE
from sdxl_engine.settings import RunSettings
from sdxl_engine.shapes.bundle import CAPTIONS, LATENT

IMAGES = 2


@pytest.fixture(scope="module")
def theirs(bundle):
    pipeline = StableDiffusionXLPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_diffusers(pipeline, bundle, spec):
    prompts = [caption.text for caption in read_captions(bundle / CAPTIONS)[:IMAGES]]
    latent = read_latent(bundle / LATENT, spec)
    images = pipeline(
        prompts,
        negative_prompt=[NEGATIVE_PROMPT] * IMAGES,
        latents=latent.repeat(IMAGES, 1, 1, 1),
        guidance_scale=GUIDANCE_SCALE,
        num_inference_steps=STEPS,
        output_type="pil",
    ).images
    return np.stack([np.asarray(image) for image in images])


def ours(model_opt, tmp_path):
    pipeline = open_pipeline(
        RunSettings(model="shapes", model_opt=model_opt, engine="torch", samples=IMAGES, build_dir=tmp_path)
    )
    images = pipeline.generate(np.arange(IMAGES))
    pipeline.close()
    return images


@pytest.fixture(scope="module")
def noopt(tmp_path_factory):
    return ours("NoOpt", tmp_path_factory.mktemp("noopt"))


def test_noopt_equals_diffusers(noopt, theirs, bundle, spec):
    assert noopt.shape == (IMAGES, 128, 128, 3)
    assert noopt.dtype == np.uint8
    assert psnr(noopt, drawn_by_diffusers(theirs, bundle, spec)).min() >= 60


def cache_on_odd_steps(unet):
    """Every block but `up_blocks.2` returns the output of the step before on odd steps."""
    calls = {"step": -1}
    unet.register_forward_pre_hook(lambda *_: calls.update(step=calls["step"] + 1))
    for block in [*unet.down_blocks, unet.mid_block, *unet.up_blocks[:-1]]:
        kept = {}

        def forward(*args, _block=block.forward, _kept=kept, **kwargs):
            if calls["step"] % 2 == 0:
                _kept["output"] = _block(*args, **kwargs)
            return _kept["output"]

        block.forward = forward


def test_deepcache_equals_diffusers_with_cached_blocks(noopt, bundle, spec, tmp_path):
    pipeline = StableDiffusionXLPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    cache_on_odd_steps(pipeline.unet)
    expected = drawn_by_diffusers(pipeline, bundle, spec)
    assert psnr(ours("DeepCache", tmp_path), expected).min() >= 60
    assert psnr(noopt, expected).max() < 60, "the cache has no effect: this test shows nothing"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Of the first four steps, two of them deep: what the tests below show does not depend on how many there are."""
    made = open_pipeline(
        RunSettings(
            model="shapes",
            model_opt="DeepCache",
            engine="torch",
            samples=12,
            build_dir=tmp_path_factory.mktemp("b"),
        )
    )
    made.schedule = dataclasses.replace(
        made.schedule, timesteps=made.schedule.timesteps[:4], sigmas=made.schedule.sigmas[:5]
    )
    yield made
    made.close()


def test_an_image_does_not_depend_on_its_batch(pipeline):
    together = pipeline.generate(np.array([5, 3, 9]))
    alone = pipeline.generate(np.array([9]))
    assert psnr(together[2:], alone).min() >= 60


def test_the_same_batch_gives_the_same_bytes(pipeline):
    first = pipeline.generate(np.array([1, 2]))
    pipeline.generate(np.array([7, 8]))
    np.testing.assert_array_equal(pipeline.generate(np.array([1, 2])), first)


def test_start_and_result_give_what_generate_gives(pipeline):
    batches = [np.array([4, 0, 11]), np.array([6])]
    pending = [pipeline.start(rows) for rows in batches]
    for rows, batch in zip(batches, pending, strict=True):
        np.testing.assert_array_equal(batch.result(), pipeline.generate(rows))


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([], ValueError, "got 0 indices, expected 1 to 8"),
        (list(range(9)), ValueError, "got 9 indices, expected 1 to 8"),
        ([3, 12], IndexError, "indices from 3 to 12, there are 12 prompts"),
        ([-1, 3], IndexError, "indices from -1 to 3"),
    ],
)
def test_indices_outside_batch_or_table_are_refused(pipeline, indices, error, words):
    with pytest.raises(error, match=words):
        pipeline.start(np.array(indices, np.int64))


def test_post_processing_clamps_and_rounds(pipeline):
    levels = torch.tensor([-3.0, -1.0, -1 + 2 * 0.49 / 255, -1 + 2 * 0.51 / 255, 1.0, 7.0])
    images = levels.reshape(1, 1, 1, 6).repeat(1, 3, 1, 1)
    assert pipeline.post_process(images)[0, 0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_graphs_are_insisted_on_where_there_can_be_none(tmp_path):
    settings = RunSettings(model="shapes", engine="torch", device="cpu", graphs="on", samples=1, build_dir=tmp_path)
    with pytest.raises(UsageError, match="cannot be CUDA graphs") as caught:
        open_pipeline(settings)
    assert caught.value.parts["got"] == "engine torch on cpu, graphs on"


def test_the_first_step_must_be_deep(pipeline):
    with pytest.raises(ValueError, match="step 0 must be deep"):
        type(pipeline)(pipeline.engine, pipeline.schedule, [1, 3], pipeline.tokens, pipeline.latent, BATCH_SIZE)
