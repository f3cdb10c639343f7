import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sdxl_engine
from sdxl_engine.cli import main
from sdxl_engine.engines.registry import EngineEntry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model-opt", "DeepCach"], "did you mean 'DeepCache'?"),
        (["run", "--model", "random", "--model-opt", "DeepCachePruned"], "has no pruned UNet"),
        (["run", "--samples", "0"], "at least one sample"),
        (["run", "--samples", "5001"], "at most 5000"),
        (["run", "--engine", "tensorflow"], "unknown engine 'tensorflow'"),
        (["run", "--model", "no/such/folder"], "no such folder"),
        (["run", "--captions", "none.tsv"], "captions file is missing"),
        (["run", "--pipeline", "mine"], "expected: module:callable"),
        (["run", "--timeout-s", "0"], "more than 0"),
        (["run", "--gate", "official"], "the official range does not hold for the model shapes"),
        (["run", "--gate", "custom"], "takes its ranges from one place"),
        (["run", "--clip-range=31,30"], "from:     --clip-range"),
        (["run", "--ranges", "none.json"], "file of ranges is missing"),
        (["run", "--metrics-device", "gpu"], "from:     --metrics-device"),
        (["score", "--images", ".", "--metrics-device", "cuda:99"], "the scorer's device is not here"),
        (["score", "--images", ".", "--gate", "official"], "the official range does not hold"),
        (["score"], "there is nothing to score"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_ends_with_status_4_and_says_why(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 4
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "wrong usage left something behind"


def test_a_captions_file_without_a_column_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "captions.tsv"
    file.write_text("id\tcaption\n1\ta small red circle\n")
    assert main(["run", "--captions", str(file)]) == 1
    message = capsys.readouterr().err
    assert "lacks the columns image_id, height, width, file_name, coco_url" in message
    assert str(file) in message
    assert list(tmp_path.iterdir()) == [file]


def test_a_flipped_byte_in_the_bundle_ends_the_run_with_status_1(tmp_path):
    package = Path(sdxl_engine.__file__).parent
    copy = shutil.copytree(package, tmp_path / "sdxl_engine", ignore=shutil.ignore_patterns("__pycache__"))
    weights = copy / "shapes" / "bundle" / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x80
    weights.write_bytes(content)
    result = subprocess.run(
        [sys.executable, "-m", "sdxl_engine", "generate", "--samples", "1", "--output", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "the embedded model is damaged in 1 file" in result.stderr
    assert "vae/diffusion_pytorch_model.safetensors" in result.stderr
    assert not (tmp_path / "out").exists()


def test_generated_pictures_score_as_the_run_does(tmp_path, capsys, build_dir):
    """`generate` and `score --images` go through the same pipeline and scorer as a LoadGen run."""
    out = tmp_path / "out"
    common = ["--samples", "6", "--build-dir", str(build_dir), "--engine", "torch"]
    assert main(["generate", *common, "--output", str(out), "--json", str(tmp_path / "g.json")]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"{row}.png" for row in range(6)]
    assert main(["score", *common, "--images", str(out)]) == 0
    line = capsys.readouterr().out
    assert "CLIP_SCORE: 99." in line
    assert "had 6" in line, "a count without ranges must not be judged"
    assert main(["score", *common, "--images", str(out), "--clip-range=,95", "--json", str(tmp_path / "s.json")]) == 1
    assert "  outside custom range: CLIP_SCORE\n" in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert result["verdict"]["gate"] == "custom (CLIP at most 95.0)"
    assert main(["score", *common, "--images", str(out), "--clip-range=95,", "--fid-range=,1000"]) == 0
    assert "  FID of 6 images for 64 dimensions judges nothing" in capsys.readouterr().out
    (out / "3.png").unlink()
    assert main(["score", *common, "--images", str(out)]) == 1
    assert "3.png" in capsys.readouterr().err


def test_doctor_says_what_would_run(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert '"model": "shapes"' in shown
    assert '"onnxruntime": "ready"' in shown


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (0, "the engine 'cuda' needs a GPU that is not here; got: 0 GPUs that torch can use; expected: one"),
        (1, "the engine 'cuda' does not run on this GPU; got: A100, compute capability 8.0; expected: compute capabil"),
    ],
)
def test_doctor_says_why_an_engine_that_is_installed_cannot_run_here(monkeypatch, tmp_path, gpus, reason):
    monkeypatch.setattr(EngineEntry, "missing", ())
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "A100")
    assert main(["doctor", "--engine", "onnxruntime", "--json", str(tmp_path / "d.json")]) == 0
    engines = json.loads((tmp_path / "d.json").read_text())["engines"]
    assert engines["cuda"].startswith(reason)
    assert "\n" not in engines["cuda"]
    assert (engines["onnxruntime"], engines["torch"]) == ("ready", "ready")


def test_doctor_lists_an_engine_ready_on_a_gpu_that_it_runs_on(monkeypatch, tmp_path):
    monkeypatch.setattr(EngineEntry, "missing", ())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    assert main(["doctor", "--engine", "onnxruntime", "--json", str(tmp_path / "d.json")]) == 0
    assert json.loads((tmp_path / "d.json").read_text())["engines"]["cuda"] == "ready"
