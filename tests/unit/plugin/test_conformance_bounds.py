"""The arithmetic of the conformance suite: figures, bounds, what is said and kept."""

import json
import math

import pytest
import torch

from pytest_sdxl.conformance.compare import Comparison
from pytest_sdxl.conformance.figures import Figures, distance, figures, image_limit, limit
from pytest_sdxl.properties import CONFORMANCE
from sdxl_engine.errors import UsageError

EXPECTED = torch.tensor([[3.0, 4.0], [6.0, 8.0], [5.0, 12.0]])


def test_figures_are_those_of_the_worst_row():
    got = EXPECTED.clone()
    got[1] += torch.tensor([0.8, -0.6])  # a tenth of the row's length, across it
    found = distance(got, EXPECTED)
    assert found["relative"] == (pytest.approx(0.1, rel=1e-6), 1)
    assert found["cosine"] == (pytest.approx(1 - 1 / math.hypot(1, 0.1), rel=1e-5), 1)
    assert found["largest"] == (pytest.approx(0.8 / math.sqrt(50), rel=1e-6), 1)


def test_the_cosine_does_not_see_a_factor_and_keeps_its_digits():
    assert figures(EXPECTED * 1.5, EXPECTED).cosine == pytest.approx(0, abs=1e-30)
    turned = EXPECTED.double() + 1e-9 * EXPECTED.double().flip(1) * torch.tensor([1.0, -1.0])
    assert figures(turned, EXPECTED.double()).cosine == pytest.approx(0.5e-18, rel=1e-3)


def test_one_wrong_element_of_a_million_shows_in_the_largest():
    expected = torch.ones(1, 1_000_000)
    got = expected.clone()
    got[0, 5] = 0
    found = figures(got, expected)
    assert found.largest == pytest.approx(1)
    assert found.relative == pytest.approx(1e-3)


def test_bounds_are_so_many_floors_and_never_less_than_rounding_once():
    bounds = limit(Figures(1e-3, 1e-6, 1e-2), "fp16")
    assert bounds == Figures(pytest.approx(4e-3), pytest.approx(16e-6), pytest.approx(4e-2))
    least = limit(Figures(0.0, 0.0, 0.0), "bf16")
    assert least == Figures(pytest.approx(4 / 256), pytest.approx(16 / 256**2 / 2), pytest.approx(4 / 256))
    assert image_limit(1.0, "bf16") == 4.0
    assert image_limit(1e-4, "fp32") == pytest.approx(0.2887, abs=1e-4)  # 58.9 dB


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_precision_without_a_floor_has_no_bound(precision):
    with pytest.raises(UsageError, match=f"no conformance bounds for {precision}") as caught:
        limit(Figures(1e-2, 1e-4, 1e-1), precision)
    assert "pytest -m accuracy" in caught.value.parts["fix"]


class Item:
    def __init__(self):
        self.user_properties = []


def compared(got):
    item = Item()
    Comparison(item, "fp32")("unet, 8 images, step 10", {"latent": got}, {"latent": EXPECTED}, {"latent": FLOOR})
    return item.user_properties


FLOOR = Figures(1e-7, 1e-14, 1e-6)


def test_a_miss_says_network_input_bound_and_figure():
    got = EXPECTED.clone()
    got[2] *= 1.0005
    with pytest.raises(pytest.fail.Exception) as caught:
        compared(got)
    said = (
        "unet, 8 images, step 10, output latent: {} to the reference {}, at most {} "
        "(32 x {}, the rounding of fp32 measured on this network); worst in row 2 of 3"
    )
    assert str(caught.value).splitlines() == [
        said.format("relative error", "0.0005", "3.2e-06", "1e-07"),
        said.format("largest error of an element", "0.00065", "3.2e-05", "1e-06"),
    ]


def test_values_that_are_not_finite_say_how_many_and_where():
    got = EXPECTED.clone()
    got[1] = torch.tensor([torch.inf, torch.nan])
    with pytest.raises(pytest.fail.Exception, match="output latent: 2 of 6 values are not finite, the first in row 1"):
        compared(got)


def test_figures_are_kept_as_builtins():
    kept = compared(EXPECTED)
    assert {(name, type(value)) for name, value in kept} == {(CONFORMANCE, str)}
    assert [json.loads(value)["figure"] for _, value in kept] == [
        "relative error",
        "cosine distance",
        "largest error of an element",
    ]
    assert json.loads(kept[0][1]) == {
        "what": "unet, 8 images, step 10, output latent",
        "figure": "relative error",
        "value": 0.0,
        "bound": pytest.approx(3.2e-6),
    }
