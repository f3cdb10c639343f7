"""Where images are scored."""

import pytest

from sdxl_engine.accuracy import placement
from sdxl_engine.accuracy.placement import chosen_device, open_scorer
from sdxl_engine.accuracy.scorer import Scorer
from sdxl_engine.accuracy.variants import load_metrics
from sdxl_engine.errors import UnavailableError
from sdxl_engine.models.source import model_of
from sdxl_engine.settings import RunSettings


@pytest.fixture
def see(monkeypatch):
    """Let PyTorch see so many GPUs in this process."""
    import torch

    def see(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return see


@pytest.mark.parametrize(
    ("gpus", "asked", "chosen"),
    [(0, "auto", "cpu"), (1, "auto", "cuda"), (1, "cpu", "cpu"), (1, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_auto_is_a_gpu_where_there_is_one(see, gpus, asked, chosen):
    see(gpus)
    assert chosen_device(asked) == chosen


@pytest.mark.parametrize(("gpus", "asked"), [(0, "cuda"), (1, "cuda:1")])
def test_a_gpu_that_is_not_here_is_never_another_device(see, gpus, asked):
    see(gpus)
    with pytest.raises(UnavailableError, match="device is not here") as caught:
        chosen_device(asked)
    assert (caught.value.parts["got"], caught.value.parts["expected"]) == (asked, f"one of {gpus} GPUs")
    assert "--sdxl-metrics-device=auto" in caught.value.parts["fix"]


def test_on_the_cpu_the_scorer_is_in_this_process():
    with open_scorer(model_of(RunSettings(model="shapes")), "auto", "cpu") as scorer:
        assert isinstance(scorer, Scorer)
        assert (scorer.metric.variant, scorer.metric.identity["device"]) == ("shapes", "cpu")


def test_for_a_gpu_the_networks_are_loaded_on_it_in_another_process(see, monkeypatch):
    class Apart:
        def __init__(self, load):
            self.load, self.closed = load, False

        def close(self):
            self.closed = True

    see(2)
    monkeypatch.setattr(placement, "ProcessScorer", Apart)
    model = model_of(RunSettings(model="shapes"))
    with open_scorer(model, "torchmetrics", "cuda:1") as scorer:
        assert (scorer.load.func, scorer.load.args) == (load_metrics, (model, "torchmetrics", "cuda:1"))
        assert not scorer.closed
    assert scorer.closed
