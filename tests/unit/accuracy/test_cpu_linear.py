"""Linear layers by oneDNN: torch's own product, up to float32's rounding."""

import pytest

from sdxl_engine.accuracy import cpu_linear


@pytest.fixture
def layer():
    """Inputs of three axes, weights and biases, float32."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((3, 7, 96), (40, 96), (40,))]


def exact(x, weight, bias):
    return x.double() @ weight.double().T + bias.double()


def test_as_exact_as_float32_allows(layer):
    import torch

    with torch.inference_mode():
        found = cpu_linear.linear(*layer)
    # 96 products of normal numbers: an error of 2^-24 of their sum of sizes, some 60, at each of a few roundings.
    torch.testing.assert_close(found.double(), exact(*layer), rtol=0, atol=4 * 60 * 2**-24)


def test_weights_that_are_rows_of_others(layer):
    import torch

    x, weight, bias = layer
    with torch.inference_mode():
        whole, part = cpu_linear.linear(x, weight, bias), cpu_linear.linear(x[:, 2:3], weight[8:24], bias[8:24])
    torch.testing.assert_close(part, whole[:, 2:3, 8:24], rtol=0, atol=2e-5)


@pytest.mark.parametrize("why", ["no such operation", "float64", "gradients", "oneDNN switched off"])
def test_torchs_own_where_onednns_is_not_to_be_had(layer, why, monkeypatch):
    import torch
    import torch.nn.functional as F

    def unwanted(*_arguments):
        raise AssertionError

    monkeypatch.setattr(cpu_linear, "ONEDNN", None if why == "no such operation" else unwanted)
    if why == "float64":
        layer = [part.double() for part in layer]
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", why != "oneDNN switched off")
    with torch.set_grad_enabled(why == "gradients"):
        assert torch.equal(cpu_linear.linear(*layer), F.linear(*layer))
