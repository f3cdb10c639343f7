"""`sdxl-engine prune` and `distill`, and what runs once a checkpoint has a pruned UNet."""

import json
import shutil

import pytest
import torch

from sdxl_engine.assets.captions import write_captions
from sdxl_engine.cli import main
from sdxl_engine.engines.base import EngineRequest
from sdxl_engine.engines.torch_engine import create
from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.export import exported
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.source import resolve_model
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS, read_spec


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    """A copy to which a pruned UNet is added by the commands."""
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "tiny")
    captions = folder.parent / "captions.tsv"
    write_captions(captions, ["one", "two", "three"], 64)
    with pytest.raises(UsageError, match="has no pruned UNet") as caught:
        resolve_model(str(folder), folder.parent).check_variant("DeepCachePruned")
    assert f"sdxl-engine prune --model {folder} " in str(caught.value)
    common = ["--model", str(folder), "--captions", str(captions), "--device", "cpu"]
    common += ["--build-dir", str(folder.parent / "build")]
    start = folder.parent / "start"
    assert main(["prune", *common, "--share", "0.97", "--prompts", "1", "--output", str(start)]) == 0
    distill = ["distill", *common, "--pruned", str(start), "--steps", "1", "--batch", "1", "--prompts", "3"]
    result = folder.parent / "r.json"
    assert main([*distill, "--output", str(folder / "unet_pruned"), "--json", str(result)]) == 0
    assert json.loads(result.read_text()) == json.loads((folder / "unet_pruned" / "pruning.json").read_text())
    return folder


def test_the_report_says_what_was_done(checkpoint):
    report = json.loads((checkpoint / "unet_pruned" / "pruning.json").read_text())
    flops, parameters = report["flops"], report["parameters"]
    assert report["share"] == flops["pruned"] / flops["full"] <= report["share_asked"] == 0.97
    assert parameters["pruned"] < parameters["full"]
    assert report["dropped"] == sorted(report["dropped"]) != []
    assert report["distillation"]["steps"] == 1
    assert report["distillation"]["loss_after"] > 0


def test_the_engine_runs_the_pruned_unet_in_deep_steps_and_the_full_ones_shallow_part(checkpoint, tmp_path):
    resolve_model(str(checkpoint), tmp_path).check_variant("DeepCachePruned")
    full, pruned = load_networks(checkpoint), load_networks(checkpoint, model_opt="DeepCachePruned")
    layers = [sum("transformer_blocks" in name for name in each["unet"].state_dict()) for each in (full, pruned)]
    assert layers[1] < layers[0]
    shallow = [dict(each["shallow_unet"].unet.up_blocks[-1].state_dict()) for each in (full, pruned)]
    assert shallow[0].keys() == shallow[1].keys()
    assert all(torch.equal(each, shallow[1][name]) for name, each in shallow[0].items())
    assert not list(pruned["shallow_unet"].unet.down_blocks), "weights that no step runs are kept"

    spec = read_spec(checkpoint)
    noise = {}
    for model_opt in ("DeepCache", "DeepCachePruned"):
        engine = create(EngineRequest(checkpoint=checkpoint, spec=spec, cache=tmp_path, model_opt=model_opt))
        interface = engine.networks["unet"]
        specs = interface.inputs | interface.outputs
        buffers = {name: torch.full(each.at(2), 0.5) for name, each in specs.items()}
        engine.bind("unet", buffers)()
        noise[model_opt] = buffers["latent"]
    assert not torch.equal(noise["DeepCache"], noise["DeepCachePruned"])


def test_an_export_of_the_pruned_unet_has_an_address_of_its_own(checkpoint, tmp_path, monkeypatch):
    """Where a built file lies follows from what it was made from, so one is never taken for the other."""
    loaded = []

    def write(_network, _tensors, target):
        target.parent.mkdir(parents=True)
        target.write_text(str(loaded[-1]))

    monkeypatch.setattr(exported.load, "load_network", lambda _path, name, *given: loaded.append((name, given[-1])))
    monkeypatch.setattr(exported.exporter, "export_network", write)
    spec = read_spec(checkpoint)

    def where(model_opt):
        return exported.exported_networks(checkpoint, spec, tmp_path, "fp32", model_opt)

    base, pruned = where("NoOpt"), where("DeepCachePruned")
    assert base == where("DeepCache") != pruned
    # What the two share is not exported again.
    assert loaded == [*((name, "NoOpt") for name in NETWORKS), ("unet", "DeepCachePruned")]
    same = {
        name for name, sub in ONNX_FOLDERS.items() if (base / sub / "model.onnx").samefile(pruned / sub / "model.onnx")
    }
    assert same == {*NETWORKS} - {"unet"}
    (checkpoint / "unet_pruned" / "pruning.json").write_text("{}")
    assert where("DeepCachePruned") != pruned


def test_a_pruned_unet_of_other_widths_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    path = folder / "unet_pruned" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block_out_channels": [8, 16, 32]}))
    with pytest.raises(AssetError, match="does not fit the checkpoint") as caught:
        load_networks(folder, model_opt="DeepCachePruned")
    assert "block_out_channels [8, 16, 32]" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prune", "--model", "random", "--output", "out"], "random weights have no importance"),
        (["prune", "--model", "shapes", "--output", "."], "output folder is not empty"),
        (["prune", "--model", "{checkpoint}", "--output", "out"], "no prompts to prune with"),
        (["prune", "--model", "shapes", "--share", "0.2", "--prompts", "1", "--output", "out"], "--share"),
        (["distill", "--model", "shapes", "--pruned", "p", "--steps", "0", "--output", "out"], "--steps"),
    ],
)
def test_wrong_usage_is_status_4_and_leaves_nothing(checkpoint, capsys, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main([argument.format(checkpoint=checkpoint) for argument in arguments]) == 4
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_unet_pruned_from_another_checkpoint_is_not_trained_after_this_one(checkpoint, capsys, tmp_path):
    arguments = ["distill", "--model", "shapes", "--pruned", str(checkpoint.parent / "start"), "--prompts", "1"]
    assert main([*arguments, "--build-dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "was pruned from another checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
