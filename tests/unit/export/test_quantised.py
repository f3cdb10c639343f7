"""Ranges that ModelOpt measures, layers rounded to them, and their ONNX export, on a network of three layers."""

import copy
import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sdxl_engine.export import calibration
from sdxl_engine.export import onnx as exporter
from sdxl_engine.export.calibration import statistics_of
from sdxl_engine.export.calibration_set import CalibrationSet
from sdxl_engine.export.quantised_layers import Amax, QuantisedLayer, replace_layers
from sdxl_engine.export.ranges import measured_ranges
from sdxl_engine.export.recipes import FP8, INT8, RECIPES
from sdxl_engine.export.statistics import LayerStatistics
from sdxl_engine.models.spec import NetworkSpec, TensorSpec, read_spec
from sdxl_engine.shapes.bundle import BUNDLE, LATENT


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
    """Three batches of four steps."""
    return torch.randn(12, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def ranges(net, batches):
    watched = copy.deepcopy(net)

    def draw():
        with torch.inference_mode():
            for batch in batches:
                watched(batch)

    return statistics_of(watched, draw, steps=4)


def in_int8(values, amax):
    return np.clip(np.round(values / (amax / 127)), -128, 127) * (amax / 127)


def in_fp8(values, amax):
    """To the nearest of the values that E4M3 has: up to 448, eight to each power of two, 2^-9 apart below 2^-6."""
    exponents = np.arange(-6, 9)[:, None]
    levels = np.concatenate([np.arange(8) * 2.0**-9, (2.0**exponents * (1 + np.arange(8) / 8)).ravel()[:-1]])
    assert levels.max() == 448
    scaled = values / (amax / 448)
    nearest = levels[np.abs(np.abs(scaled)[..., None] - levels).argmin(axis=-1)]
    return np.sign(scaled) * nearest * (amax / 448)


def test_statistics_are_largest_magnitudes_by_channel_and_by_step(net, batches, ranges):
    assert set(ranges) == {"conv_in", "conv", "ff"}
    seen = torch.stack([net.conv_in(batch) for batch in batches]).abs()
    torch.testing.assert_close(ranges["conv"].channels, seen.amax(dim=(0, 1, 3, 4)))
    of_calls = seen.flatten(1).amax(1).reshape(3, 4)
    torch.testing.assert_close(ranges["conv"].steps, torch.stack([of_calls.amax(0), of_calls.mean(0)]))
    of_ff = torch.stack([net.conv(net.conv_in(batch)) for batch in batches]).abs()
    torch.testing.assert_close(ranges["ff"].channels, of_ff.amax(dim=(0, 1, 3, 4)))
    assert ranges["ff"].steps is None
    torch.testing.assert_close(ranges["conv"].weight, net.conv.weight.abs().amax(dim=(1, 2, 3)))
    torch.testing.assert_close(ranges["ff"].weight, net.ff.weight.abs().amax(dim=1))


def test_ranges_are_measured_once_for_all_recipes_and_anew_for_other_captions_or_another_unet(
    ranges, tmp_path, monkeypatch
):
    measured = []

    def calibrated(_checkpoint, _spec, drawn, model_opt):
        measured.append((drawn.captions, model_opt))
        return ranges

    monkeypatch.setattr(calibration, "calibrated", calibrated)
    one, other = (CalibrationSet((text,), BUNDLE / LATENT) for text in ("a ring", "a cross"))
    for drawn, model_opt in (
        (one, "NoOpt"),
        (one, "DeepCache"),
        (one, "DeepCachePruned"),
        (other, "NoOpt"),
        (one, "DeepCachePruned"),
    ):
        found = measured_ranges(BUNDLE, read_spec(BUNDLE), tmp_path, drawn, model_opt)
        assert found.keys() == ranges.keys()
        torch.testing.assert_close(vars(found["conv"]), vars(ranges["conv"]))
        assert found["ff"].steps is None
    assert measured == [(("a ring",), "NoOpt"), (("a ring",), "DeepCachePruned"), (("a cross",), "NoOpt")]


@pytest.mark.parametrize(
    ("changes", "conv"),
    [
        ({}, 9.0),
        ({"percentile": 0.5}, 7.0),
        ({"collect": "min-max"}, 4.0),
        ({"collect": "min-max", "percentile": 0.75}, 5.0),
        ({"collect": "min-mean"}, 2.0),
        ({"collect": "min-mean", "percentile": 0.25}, 3.0),
    ],
)
def test_a_recipe_takes_a_convolutions_range_from_the_steps_it_looks_at(changes, conv):
    steps = torch.tensor([[7.0, 5.0, 9.0, 4.0], [3.0, 2.5, 4.0, 2.0]])
    weight = torch.tensor([1.0, 2.0])
    statistics = {
        "conv": LayerStatistics(torch.tensor([9.0, 1.0]), steps, weight),
        "ff": LayerStatistics(torch.tensor([2.0, 6.0]), None, weight),
    }
    found = dataclasses.replace(INT8, **{"collect": "max"} | changes).layers(statistics)
    assert float(found["conv"].input) == conv
    assert float(found["ff"].input) == 6


def test_a_recipe_leaves_out_what_it_keeps_and_fp8_has_one_range_for_all_of_a_layers_weights(net, ranges):
    assert set(INT8.layers(ranges)) == {"conv", "ff"}
    torch.testing.assert_close(INT8.layers(ranges)["ff"].weight, ranges["ff"].weight)
    assert set(FP8.layers(ranges)) == {"conv", "ff"}
    torch.testing.assert_close(FP8.layers(ranges)["ff"].weight, net.ff.weight.abs().max())


@pytest.mark.parametrize(("precision", "rounded", "dim"), [("int8", in_int8, 1), ("fp8", in_fp8, None)])
def test_a_layer_multiplies_a_rounded_input_with_rounded_weights(net, precision, rounded, dim):
    values = torch.linspace(-2, 2, 12).reshape(2, 6)
    amax = Amax(torch.tensor(1.5), net.ff.weight.abs().amax(dim))  # clips
    of_weights = amax.weight.double().numpy().reshape(-1, 1)
    weight = rounded(net.ff.weight.double().numpy(), of_weights)
    expected = rounded(values.double().numpy(), 1.5) @ weight.T + net.ff.bias.double().numpy()
    np.testing.assert_allclose(QuantisedLayer(net.ff, amax, precision)(values), expected, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_export_rounds_inputs_and_weights_and_onnx_runtime_computes_the_same(
    net, batches, ranges, recipe, tmp_path
):
    quantised = copy.deepcopy(net)
    replace_layers(quantised, recipe.layers(ranges), recipe.precision)
    sample, output = TensorSpec((3, 8, 8), "float32"), TensorSpec((4, 4, 5), "float32")
    values = 2 * batches[0]  # clips
    expected, exact = quantised(values).numpy(), net(values).numpy()
    # The export empties the network.
    interface = NetworkSpec({"sample": sample}, {"noise": output})
    exporter.export_network(quantised, interface, tmp_path / "net" / "model.onnx", recipe.opset)
    model = onnx.load(tmp_path / "net" / "model.onnx")
    nodes = Counter(node.op_type for node in model.graph.node)
    assert (nodes["QuantizeLinear"], nodes["DequantizeLinear"]) == (4, 4)
    assert model.opset_import[0].version == recipe.opset
    kinds = {onnx.TensorProto.INT8: "int8", onnx.TensorProto.FLOAT8E4M3FN: "fp8"}
    assert {kinds.get(held.data_type) for held in model.graph.initializer} == {None, recipe.precision}
    session = onnxruntime.InferenceSession(tmp_path / "net" / "model.onnx", providers=["CPUExecutionProvider"])
    (ran,) = session.run(None, {"sample": values.numpy()})
    assert np.abs(ran - expected).max() < 1e-3 * np.abs(expected - exact).max()


@pytest.mark.parametrize(
    ("layer", "keeping"),
    [
        ("time_embedding.linear_1", {INT8, FP8}),
        ("down_blocks.1.resnets.0.time_emb_proj", {INT8, FP8}),
        ("up_blocks.2.resnets.0.conv_shortcut", {INT8, FP8}),
        ("up_blocks.2.resnets.2.conv1", {INT8, FP8}),
        ("mid_block.attentions.0.proj_out", {INT8}),
        ("up_blocks.2.resnets.1.conv1", set()),
        ("mid_block.attentions.0.proj_in", set()),
    ],
)
def test_a_recipe_keeps_the_layers_that_its_sources_name(layer, keeping):
    assert {recipe for recipe in RECIPES.values() if recipe.keeps(layer)} == keeping
