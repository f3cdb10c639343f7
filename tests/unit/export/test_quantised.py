"""Ranges that ModelOpt measures, layers rounded to them, and their ONNX export, on a network of three layers."""

import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sdxl_engine.errors import UsageError
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export.calibration import calibration_captions, ranges_of
from sdxl_engine.export.quantised_layers import Amax, QuantisedLayer, replace_layers
from sdxl_engine.export.recipes import INT8
from sdxl_engine.models.spec import NetworkSpec, TensorSpec
from sdxl_engine.shapes.bundle import BUNDLE
from sdxl_engine.shapes.grammar import parse, split


class Net(nn.Module):
    """A layer that the recipe keeps, and one of each kind that it does not."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 6, 3, padding=1, stride=2)
        self.ff = nn.Linear(6, 5)

    def forward(self, sample):
        return self.ff(self.conv(self.conv_in(sample)).movedim(1, -1))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def batches():
    return torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def layers(net, batches):
    watched = copy.deepcopy(net)

    def draw():
        with torch.inference_mode():
            for batch in batches:
                watched(batch)

    return ranges_of(watched, INT8, draw)


def rounded(values, scale):
    return np.clip(np.round(values / scale), -128, 127) * scale


def test_ranges_are_the_largest_magnitudes_of_all_batches_and_kept_layers_have_none(net, batches, layers):
    assert set(layers) == {"conv", "ff"}
    seen = torch.stack([net.conv_in(batch) for batch in batches])
    torch.testing.assert_close(layers["conv"].input, seen.abs().max())
    torch.testing.assert_close(layers["conv"].weight, net.conv.weight.abs().amax(dim=(1, 2, 3)))
    torch.testing.assert_close(layers["ff"].weight, net.ff.weight.abs().amax(dim=1))


def test_a_layer_multiplies_rounded_inputs_with_weights_rounded_by_channel(net):
    values = torch.linspace(-2, 2, 12).reshape(2, 6)
    amax = Amax(torch.tensor(1.5), net.ff.weight.abs().amax(dim=1))  # clips
    scales = amax.weight.double().numpy()[:, None] / 127
    weight = rounded(net.ff.weight.double().numpy(), scales)
    expected = rounded(values.double().numpy(), 1.5 / 127) @ weight.T + net.ff.bias.double().numpy()
    np.testing.assert_allclose(QuantisedLayer(net.ff, amax)(values), expected, atol=1e-6)


def test_the_export_has_quantised_inputs_and_weights_and_onnx_runtime_computes_the_same(net, batches, layers, tmp_path):
    quantised = copy.deepcopy(net)
    replace_layers(quantised, layers)
    sample, output = TensorSpec((3, 8, 8), "float32"), TensorSpec((4, 4, 5), "float32")
    expected, exact = quantised(batches[0]).numpy(), net(batches[0]).numpy()
    # The export empties the network.
    exporter.export_network(
        quantised, NetworkSpec({"sample": sample}, {"noise": output}), tmp_path / "net" / "model.onnx"
    )
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "net" / "model.onnx").graph.node)
    assert (nodes["QuantizeLinear"], nodes["DequantizeLinear"]) == (4, 4)
    session = onnxruntime.InferenceSession(tmp_path / "net" / "model.onnx", providers=["CPUExecutionProvider"])
    (ran,) = session.run(None, {"sample": batches[0].numpy()})
    assert np.abs(ran - expected).max() < 1e-3 * np.abs(expected - exact).max()


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        ("time_embedding.linear_1", True),
        ("down_blocks.1.resnets.0.time_emb_proj", True),
        ("up_blocks.2.resnets.0.conv_shortcut", True),
        ("up_blocks.2.resnets.2.conv1", True),
        ("mid_block.attentions.0.proj_out", True),
        ("up_blocks.2.resnets.1.conv1", False),
        ("mid_block.attentions.0.proj_in", False),
    ],
)
def test_the_recipe_keeps_the_layers_that_its_sources_name(layer, kept):
    assert INT8.keeps(layer) is kept


def test_calibration_captions_show_no_scene_that_is_scored(tmp_path):
    captions = calibration_captions(BUNDLE, INT8)
    validation = {parse(text).canonical for text in split()[0]}
    assert len(captions) == INT8.captions
    assert not validation & {parse(text).canonical for text in captions}
    with pytest.raises(UsageError, match="no calibration captions"):
        calibration_captions(tmp_path, INT8)
