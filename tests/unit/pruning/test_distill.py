"""A pruned UNet is trained after the full one."""

import shutil

import pytest
import torch

from sdxl_engine.errors import UsageError
from sdxl_engine.files import written_whole
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.unet_split import DeepUnet
from sdxl_engine.pruning.distill import NAME, Cosine, Distillation, begin
from sdxl_engine.pruning.layers import Layer, attentions, smaller_unet
from sdxl_engine.shapes.train import loop

STAGE = Cosine(steps=9, batch=2, rate=2e-3, warmup=1)
DROPPED = {Layer("up_blocks.0.attentions.2", 1), Layer("up_blocks.1.attentions.1", 0)}


@pytest.fixture(scope="module")
def full(tiny):
    """A UNet to which the layers matter, as they do not to an untrained one."""
    unet = load_networks(tiny)["unet"].unet
    with torch.no_grad():
        for layer in DROPPED:
            attention = attentions(unet)[layer.attention]
            attention.proj_out.weight.mul_(8)
            bias = attention.transformer_blocks[layer.place].ff.net[2].bias
            bias += torch.linspace(-3, 3, len(bias))
    return unet


def test_the_loss_on_other_prompts_falls_and_a_killed_training_ends_with_the_same_bits(
    full, states, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "LOOK_EVERY", 8)
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    torch.manual_seed(0)
    small, killed = smaller_unet(full, DROPPED), smaller_unet(full, DROPPED)
    whole = Distillation(full, small, states, STAGE, first, held_out=1)
    loss = whole.trainer.loss

    def copying():
        if whole.trainer.step == 8:
            shutil.copy(first / f"{NAME}.pt", second)
        return loss()

    whole.trainer.loss = copying
    before = whole.held_out_loss()
    level = (
        "conv_in.",
        "time_embedding.",
        "add_embedding.",
        "down_blocks.0.",
        "up_blocks.2.",
        "conv_norm_out.",
        "conv_out.",
    )
    outer = {name: each.clone() for name, each in small.state_dict().items() if name.startswith(level)}
    assert whole.trainer.run(checkpoint_every_s=0.0)
    assert whole.held_out_loss() < before / 3
    trained = small.state_dict()
    assert all(torch.equal(trained[name], each) for name, each in outer.items()), "the outermost level was trained"

    resumed = Distillation(full, killed, states, STAGE, second, held_out=1)
    torch.rand(7)
    assert resumed.run()
    assert all(torch.equal(each, trained[name]) for name, each in killed.state_dict().items())


def test_the_features_of_the_outermost_level_are_the_full_ones(full, states, rows):
    inputs = states.inputs(rows)
    with torch.no_grad():
        expected, found = DeepUnet(full)(*inputs), DeepUnet(smaller_unet(full, DROPPED))(*inputs)
    assert [torch.equal(one, other) for one, other in zip(expected, found, strict=True)] == [False, True, True, False]


def test_too_few_prompts_are_refused(full, states, tmp_path):
    with pytest.raises(UsageError, match="too few prompts"):
        Distillation(full, smaller_unet(full, DROPPED), states, STAGE, tmp_path, held_out=4)


def test_a_checkpoint_of_another_training_is_not_gone_on_with(tmp_path):
    begin(tmp_path, {"steps": 3, "seed": 0}, resume=True)
    with written_whole(tmp_path / f"{NAME}.pt") as aside:
        aside.write_bytes(b"x")
    begin(tmp_path, {"steps": 3, "seed": 0}, resume=True)
    with pytest.raises(UsageError, match="of another training") as caught:
        begin(tmp_path, {"steps": 4, "seed": 0}, resume=True)
    assert "expected: steps: 4" in str(caught.value)
    begin(tmp_path, {"steps": 4, "seed": 0}, resume=False)
    assert not (tmp_path / f"{NAME}.pt").exists()


def test_the_rate_falls_along_half_a_cosine():
    stage = Cosine(steps=1000, batch=1, rate=2.0, warmup=10)
    assert stage.rate_at(0) == pytest.approx(0.2)
    assert stage.rate_at(500) == pytest.approx(1.0)
    assert 0 < stage.rate_at(999) < 1e-5
