"""Full float32 inside the scorer, on every device, and the process's own precision again after it."""

import contextlib
import dataclasses

import pytest

from sdxl_engine.accuracy.precision import device_identity, full_float32, usable_device
from sdxl_engine.errors import AccuracyError, UnavailableError, UsageError


def switches():
    import torch

    backends = torch.backends
    newer = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    older = (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
    return [switch.fp32_precision for switch in newer], older, backends.cudnn.benchmark


@contextlib.contextmanager
def relaxed(how):
    """A process that has less than float32 on, in one of the ways there are."""
    import torch

    backends = torch.backends
    try:
        if how == "older":
            backends.cuda.matmul.allow_tf32 = True
        elif how == "medium":
            torch.set_float32_matmul_precision("medium")
        elif how == "everywhere":
            backends.fp32_precision = "tf32"
        backends.cudnn.benchmark = True
        yield
    finally:
        backends.cudnn.benchmark = False
        backends.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = True
        backends.mkldnn.conv.fp32_precision = "none"


@pytest.mark.parametrize("how", ["default", "older", "medium", "everywhere"])
def test_nothing_less_than_float32_inside_and_all_as_before_after_it(how):
    with relaxed(how):
        before = switches()
        assert "tf32" in before[0], "cuDNN's convolutions have it on by default"
        with full_float32("cuda"):
            newer, older, benchmark = switches()
            assert not {"tf32", "bf16"} & set(newer)
            assert older == ("highest", False, False)
            assert not benchmark
        assert switches() == before


def test_bfloat16_is_off_on_the_cpu_too():
    import torch

    with relaxed("medium"):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        with full_float32("cpu"):
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"


def test_a_process_in_float32_is_left_alone():
    import torch

    before = switches()
    with full_float32("cpu"):
        assert switches() == before, "another thread may be drawing images meanwhile"
    assert torch.backends.cudnn.allow_tf32


def test_all_is_as_before_after_an_error():
    with relaxed("older"):
        before = switches()
        with pytest.raises(ZeroDivisionError), full_float32("cuda"):
            _ = 1 / 0
        assert switches() == before


def test_scores_are_refused_where_something_turned_the_precision_down(networks, images):
    import torch

    def turn_down(pixels):
        torch.set_float32_matmul_precision("medium")
        return networks.features.module(pixels)

    features = dataclasses.replace(networks.features, module=turn_down)
    with relaxed("default"), pytest.raises(AccuracyError, match="precision was changed") as caught:
        features(images[:2])
    assert caught.value.parts["got"] == "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'"


@pytest.mark.parametrize("device", ["mps", "tpu", "meta"])
def test_foreign_devices_are_refused(device):
    with pytest.raises(UsageError, match="no such device") as caught:
        usable_device(device)
    assert caught.value.parts["got"] == device


def test_a_missing_gpu_is_refused_before_anything_is_loaded(metrics_folder, monkeypatch):
    import torch

    from sdxl_engine.accuracy.networks import load_shapes_metrics

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UnavailableError) as caught:
        load_shapes_metrics(metrics_folder, "cuda:1")
    assert (caught.value.parts["got"], caught.value.parts["expected"]) == ("cuda:1", "one of 1 GPUs")


def test_an_environment_that_forces_tf32_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(UnavailableError, match="float32"):
        usable_device("cuda")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert usable_device("cuda").type == "cuda"


def test_identity_says_device_and_precision(networks, monkeypatch):
    import torch

    assert networks.identity.items() >= {"device": "cpu", "tf32": "off"}.items()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_identity("cuda:1") == {"device": "GPU 1", "tf32": "off"}
