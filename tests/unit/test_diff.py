import json
import math

import pytest
import torch
from PIL import Image

from sdxl_engine.cli import main
from sdxl_engine.diff.parting import errors_of, first_parting, relative_error
from sdxl_engine.diff.walk import Call
from sdxl_engine.errors import EngineError


def call(network, step, **outputs):
    inputs = {"timestep": torch.tensor([float(step or 0)])}
    return Call(network, step, inputs, {name: torch.tensor(value) for name, value in outputs.items()})


A = [call("clip1", None, hidden=[[3.0], [4.0]]), call("unet", 0, latent=[[1.0], [0.0]], up=[[1.0], [1.0]])]


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(torch.tensor([math.nan]), torch.tensor([1.0])) == math.inf
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) == math.inf


def test_own_error_and_drift_are_told_apart():
    led = [A[0], call("unet", 0, latent=[[1.0], [0.0]], up=[[1.0], [1.1]])]
    free = [call("clip1", None, hidden=[[3.0], [4.0]]), call("unet", 0, latent=[[1.0], [1.0]], up=[[1.0], [1.1]])]
    errors = errors_of(A, led, free)
    assert errors[0].own == errors[0].whole == 0
    assert errors[1].output == "up"
    assert errors[1].own == pytest.approx(0.1 / math.sqrt(2))
    assert errors[1].own_row == 1
    assert errors[1].whole == pytest.approx(1)
    assert first_parting(errors, 0.1) is None
    assert first_parting(errors, 0.05) is errors[1]


def test_two_walks_that_ran_nothing_do_not_agree():
    with pytest.raises(EngineError, match="nothing to compare"):
        errors_of([], [], [])


def diff(tmp_path, build_dir, *engines, options=()):
    named = [word for engine in engines for word in ("--engine", engine)]
    common = ["--model", "shapes", "--build-dir", str(build_dir), "--output", str(tmp_path), "--samples", "1"]
    return main(["diff", *named, *common, "--json", str(tmp_path / "d.json"), *options])


def test_two_engines_that_agree(tmp_path, build_dir, capsys):
    assert diff(tmp_path, build_dir, "torch", "onnxruntime") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("A = torch (fp32), B = onnxruntime (fp32), DeepCache, 1 captions\n")
    assert "no network's own error is above the tolerance 0.0001" in shown
    assert sum(line.startswith("unet ") for line in shown.splitlines()) == 10
    assert sum(line.startswith("shallow_unet ") for line in shown.splitlines()) == 10
    value = json.loads((tmp_path / "d.json").read_text())
    assert len(value["calls"]) == 23
    assert max(each["own"] for each in value["calls"]) < 2e-5
    with Image.open(tmp_path / "sdxl_diff.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("engine", "deep_steps", "place"),
    [
        ("engines_to_diff:ONE_STEP", "0,2,4", "unet, step 4 (timestep 751): output latent"),
        ("engines_to_diff:DEEP_CACHE", "0", "unet, step 0 (timestep 951): output up.1.sample"),
    ],
)
def test_the_first_network_and_step_are_named(tmp_path, build_dir, capsys, engine, deep_steps, place):
    """And that one alone: what follows reads what A read, so a fault is not handed on."""
    assert diff(tmp_path, build_dir, "torch", engine, options=["--deep-steps", deep_steps]) == 1
    shown = capsys.readouterr().out
    assert f"they part first at {place}, relative error " in shown
    assert "most in row 1" in shown
    assert shown.count("<- above") == 1
    value = json.loads((tmp_path / "d.json").read_text())
    assert value["calls"][-1]["own"] == 0
    assert value["calls"][-1]["whole"] > 1e-3, "with drift, the decoder's images differ"


@pytest.mark.parametrize(
    ("engines", "options", "message"),
    [
        (["torch"], [], "two engines are compared"),
        (["torch", "torch@fp8"], [], "does not run in fp8"),
        (["torch", "torch"], ["--samples", "9"], "in one batch"),
        (["torch", "torch"], ["--tolerance", "0"], "not a relative error"),
    ],
)
def test_wrong_usage(tmp_path, build_dir, capsys, engines, options, message):
    assert diff(tmp_path, build_dir, *engines, options=options) == 4
    assert message in capsys.readouterr().err
