import json

from diffusers import StableDiffusionXLPipeline

from sdxl_engine.files import tree_files
from sdxl_engine.shapes.bundle import BUNDLE, verified
from sdxl_engine.shapes.train.__main__ import STAGES, main
from sdxl_engine.shapes.train.recipe import Recipe


def test_the_recipe_in_miniature_makes_a_whole_bundle_and_resumes(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    command = ["--tiny", "--device", "cpu", "--output", str(bundle), "--work", str(tmp_path / "work")]
    assert main([*command, "--minutes", "0.0001", "--only", "vae"]) in {0, 3}
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(f'"stage": "{stage}", "complete": true' in shown for stage in STAGES)
    pruned = {f"unet_pruned/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors", "pruning.json")}
    assert {name for name, _ in tree_files(verified(bundle))} == {name for name, _ in tree_files(BUNDLE)} | pruned
    assert [each["count"] for each in json.loads((bundle / "ranges.json").read_text())["pruned_ranges"]] == [2, 4]
    StableDiffusionXLPipeline.from_pretrained(bundle)
    assert main([*command, "--only", "vae"]) == 0
    assert '"step"' not in capsys.readouterr().out, "a complete stage was trained again"


def test_the_rate_rises_holds_and_falls_to_zero():
    stage = Recipe().vae
    assert stage.rate_at(0) == stage.rate / stage.warmup
    assert stage.rate_at(stage.steps // 4) == stage.rate
    assert 0 < stage.rate_at(stage.steps - 1) < 1e-3 * stage.rate
