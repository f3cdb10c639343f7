"""Several processes that draw on GPUs, engine `torch` on `shapes`: the bytes of one pipeline, each on its own GPU."""

import json
from contextlib import closing

import gpu_contexts
import numpy as np
import pytest
import torch

from sdxl_engine import assemble
from sdxl_engine.assemble import IMAGE_SOURCE, image_source
from sdxl_engine.data_parallel import DataParallel
from sdxl_engine.loadgen.in_flight import drawn
from sdxl_engine.settings import RunSettings

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS == 0, reason="needs an NVIDIA GPU that torch can use")]
PROMPTS = 43


def settings(device):
    return RunSettings(model="shapes", model_opt="DeepCache", engine="torch", device=device, samples=PROMPTS).to_json()


def pictures(source):
    source.warm_up()
    return np.concatenate([images.copy() for _, images in drawn(source, np.arange(PROMPTS))])


@pytest.fixture(scope="module")
def alone():
    """(43, H, W, 3): one pipeline in this process."""
    with closing(image_source(settings("cuda:0"))) as source:
        return pictures(source)


def test_two_processes_on_one_gpu_draw_the_bytes_of_one_pipeline(alone):
    options = [("cuda:0", {"settings": settings("cuda:0")})] * 2
    with closing(DataParallel(IMAGE_SOURCE, options)) as source:
        np.testing.assert_array_equal(pictures(source), alone)


@pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, torch counts {GPUS}")
def test_each_process_draws_on_its_own_gpu_and_on_no_other(alone, monkeypatch, tmp_path):
    """A second context would take hundreds of MB of a GPU from what its own process draws there."""
    monkeypatch.setattr(assemble, "IMAGE_SOURCE", "gpu_contexts:source")
    monkeypatch.setenv(gpu_contexts.FOLDER, str(tmp_path))
    devices = [f"cuda:{number}" for number in range(GPUS)]
    with closing(image_source(settings(",".join(devices)))) as source:
        pids = source.pids
        np.testing.assert_array_equal(pictures(source), alone)
    contexts = [json.loads((tmp_path / str(pid)).read_text()) for pid in pids]
    assert contexts == [[number] for number in range(GPUS)]
