import json
from pathlib import Path

import pytest

from sdxl_engine.cli import main
from sdxl_engine.engines.tensorrt import generate as generating
from sdxl_engine.engines.tensorrt.generate import PlanReport
from sdxl_engine.errors import UsageError
from sdxl_engine.generate_engines_command import asked_sizes
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.systems.config import RunConfig

OWN = dict.fromkeys(NETWORKS, 8) | {"clip1": 64, "clip2": 64}


@pytest.fixture
def tensorrt(monkeypatch, tmp_path):
    """Run `generate-engines --engine tensorrt`; what would be built is in `asked`, and nothing is."""

    def call(*arguments, failed=()):
        def generate(request, tell):
            call.asked = request
            return [
                PlanReport(
                    network=network,
                    outcome="failed" if network in failed else "built",
                    plan=Path("engines/a.plan"),
                    seconds=1.5,
                    reason="killed" if network in failed else "there was none",
                )
                for network in NETWORKS
            ]

        monkeypatch.setattr(generating, "generate", generate)
        build_dir = ["--build-dir", str(tmp_path / "build")]
        return main(["generate-engines", "--engine", "tensorrt", "--model", "shapes", *build_dir, *arguments])

    return call


def test_what_is_asked_for_is_what_is_built(tensorrt, tmp_path, capsys):
    options = ["--model-opt", "NoOpt", "--precision", "fp32", "--batch-size", "unet=16", "--workspace", "2.5"]
    options += [
        "--compute-capability",
        "8.9, 12.0",
        "--force",
        "--device",
        "cuda:1",
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert tensorrt(*options) == 0
    asked = tensorrt.asked
    assert (asked.model_opt, asked.precision, asked.scenario, asked.device) == ("NoOpt", "fp32", "Offline", "cuda:1")
    assert asked.images == dict.fromkeys(NETWORKS, 8) | {"unet": 16}
    assert (asked.workspace_gib, asked.compute_capabilities, asked.force) == (2.5, ("8.9", "12.0"), True)
    assert asked.cache == tmp_path / "build" / "engines"
    assert capsys.readouterr().out == "tensorrt: shapes, NoOpt, fp32: 5 built, in engines\n"
    plans = json.loads((tmp_path / "r.json").read_text())["plans"]
    assert [(plan["network"], plan["outcome"], plan["seconds"]) for plan in plans] == [
        (network, "built", 1.5) for network in NETWORKS
    ]


def test_the_default_is_fp16_for_the_gpu_here(tensorrt):
    assert tensorrt() == 0
    assert (tensorrt.asked.precision, tensorrt.asked.compute_capabilities) == ("fp16", ())
    assert (tensorrt.asked.workspace_gib, tensorrt.asked.force, tensorrt.asked.device) == (None, False, "auto")


def test_what_is_not_asked_for_is_as_the_machines_configuration_has_it(tensorrt, monkeypatch):
    config = RunConfig(precision="fp16", use_graphs=True, gpu_batch_size=OWN, devices=1, workspace_gib=40.0)
    for module in ("run_system", "generate_engines_command"):
        monkeypatch.setattr(f"sdxl_engine.{module}.run_config", lambda settings: config)
    assert tensorrt() == 0
    assert (tensorrt.asked.images, tensorrt.asked.workspace_gib) == (OWN, 40.0)
    assert tensorrt("--batch-size", "vae=4", "--workspace", "2") == 0
    assert (tensorrt.asked.images, tensorrt.asked.workspace_gib) == (OWN | {"vae": 4}, 2.0)


def test_a_plan_that_failed_is_status_1(tensorrt, capsys):
    assert tensorrt(failed=("unet", "vae")) == 1
    shown = capsys.readouterr().out
    assert "3 built, 2 failed" in shown
    assert "FAILED: unet, vae; the other plans are kept" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "tensorrt", "--precision", "int8"], "does not run in int8"),
        (["--engine", "tensorrt", "--batch-size", "unet=0"], "not a batch size"),
        (["--engine", "tensorrt", "--compute-capability", "sm89"], "not a compute capability"),
        (["--engine", "tensorrt", "--model", "random", "--model-opt", "DeepCachePruned"], "has no pruned UNet"),
        (["--engine", "tensorrt", "--scenario", "Offlin"], "did you mean 'Offline'?"),
        (["--engine", "onnxruntime", "--force", "--workspace", "1"], "--workspace, --force"),
    ],
)
def test_what_cannot_be_built_is_status_4(capsys, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert main(["generate-engines", "--model", "shapes", *arguments]) == 4
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "different"),
    [
        (None, {}),
        ("4", dict.fromkeys(NETWORKS, 4)),
        ("unet=8,vae=2,clip1=64", {"vae": 2, "clip1": 64}),
        ("4,deep-unet=16,shallow-unet=32", dict.fromkeys(NETWORKS, 4) | {"unet": 16, "shallow_unet": 32}),
    ],
)
def test_batch_sizes(asked, different):
    assert asked_sizes(asked, OWN) == OWN | different


@pytest.mark.parametrize("asked", ["0", "-1", "8.5", "unet", "unet=", "encoder=8", "unet=8;vae=8"])
def test_what_is_no_batch_size(asked):
    with pytest.raises(UsageError):
        asked_sizes(asked, OWN)
