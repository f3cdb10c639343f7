"""`sdxl-engine systems`: what it prints, writes and ends with."""

import json
import subprocess
import sys

import pytest
from fake_nvml import FakeGpu, FakeNvml

from sdxl_engine.cli import main
from sdxl_engine.systems.catalogue import shipped_folder
from sdxl_engine.systems.reading import read_system

H100 = FakeGpu("NVIDIA H100 80GB HBM3", 81559)
A100 = FakeGpu("NVIDIA A100-SXM4-80GB [test]", 81920, (8, 0))


@pytest.fixture
def systems(monkeypatch, tmp_path, capsys):
    """Run `sdxl-engine systems` on a machine with some GPUs: exit status, output, errors."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SDXL_SYSTEMS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(action, *arguments, gpus=(), init_error=""):
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(list(gpus), init_error).module())
        status = main(["systems", action, *map(str, arguments)])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_detect_tells_the_machine_its_configuration_and_why(systems, tmp_path):
    status, shown, _ = systems("detect", "--json", "d.json", gpus=[H100])
    assert status == 0
    assert "driver: 580.95.05\nGPU 0: NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0, 10de:2330, GPU-" in shown
    assert "configuration: h100_sxm_x1 (" in shown
    assert (
        "  Offline, DeepCache: engine auto, fp8, batch 8, graphs on, devices 1, expected samples/s 2.85204 (MLPerf"
        in shown
    )
    value = json.loads((tmp_path / "d.json").read_text())
    assert (value["system"]["name"], value["notes"]) == ("h100_sxm_x1", [])
    assert value["machine"]["gpus"][0]["pci_id"] == "10de:2330"


def test_detect_of_an_unknown_machine_has_the_note(systems):
    status, shown, _ = systems("detect", gpus=[A100])
    assert status == 0
    assert "configuration: computed\nnote: no file is for this machine: computed from 80.0 GiB" in shown


def test_detect_fails_where_the_driver_does_not_answer(systems):
    status, shown, _ = systems("detect", init_error="NVML_ERROR_LIB_RM_VERSION_MISMATCH")
    assert status == 1
    assert "note: the NVIDIA driver does not answer: NVML_ERROR_LIB_RM_VERSION_MISMATCH" in shown
    assert systems("add", init_error="NVML_ERROR_LIB_RM_VERSION_MISMATCH")[0] == 4
    assert systems("detect", init_error="NVML_ERROR_LIBRARY_NOT_FOUND")[0] == 0


def test_list_marks_the_one_that_matches(systems, tmp_path):
    status, shown, _ = systems("list", "--json", "l.json", gpus=[H100])
    assert status == 0
    assert [line for line in shown.splitlines() if line.startswith("*")] == [
        "* h100_sxm_x1: 1 x NVIDIA H100 SXM, 80 GB"
    ]
    assert "  h100_sxm_x8: 8 x NVIDIA H100 SXM, 80 GB (it is for 8 GPUs, 1 visible)\n" in shown
    assert "  l40s_x1: 1 x NVIDIA L40S, 48 GB\n" in shown
    rows = json.loads((tmp_path / "l.json").read_text())["systems"]
    assert [row["name"] for row in rows if row["matches"]] == ["h100_sxm_x1"]
    assert {row["why_not"] for row in rows if row["name"].startswith("l40s")} == {"it is for NVIDIA L40S"}
    assert "* computed\nnote: no file is for this machine" in systems("list", gpus=[A100])[1]


def test_show_prints_the_file(systems, tmp_path):
    status, shown, _ = systems("show", "cpu", "--json", "s.json")
    assert status == 0
    assert shown.startswith("# ")
    assert "\ncpu = true\n" in shown
    assert json.loads((tmp_path / "s.json").read_text())["defaults"]["precision"] == "fp32"
    status, shown, errors = systems("show", "h100_sxm_x9")
    assert (status, shown) == (4, "")
    assert "unknown system 'h100_sxm_x9'" in errors
    assert "did you mean 'h100_sxm_x" in errors


def test_add_writes_a_file_that_this_machine_then_gets(systems, tmp_path):
    status, shown, _ = systems("add", gpus=[A100, A100])
    path = tmp_path / "build" / "systems" / "nvidia_a100_sxm4_80gb_test_x2.toml"
    assert status == 0
    assert shown.startswith("wrote build/systems/nvidia_a100_sxm4_80gb_test_x2.toml, from computed\nnote: ")
    assert "check by hand:\n  precision: " in shown
    written = read_system(path)
    assert (written.match.gpu_count, written.match.gpu_memory_gib) == (2, (76.0, 84.0))
    assert written.defaults.gpu_batch_size["vae"] == 8
    _, shown, _ = systems("detect", gpus=[A100, A100])
    assert f"configuration: nvidia_a100_sxm4_80gb_test_x2 ({path})\n" in shown
    assert "note:" not in shown
    status, _, errors = systems("add", "--name", "again", gpus=[A100, A100])
    assert status == 1
    assert "this machine has a configuration of your own" in errors
    assert list(path.parent.iterdir()) == [path]


def test_add_starts_from_the_file_that_matches(systems, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    assert systems("add", "--name", "mine", "--systems-dir", folder, gpus=[H100])[0] == 0
    written = read_system(folder / "mine.toml")
    shipped = read_system(shipped_folder() / "h100_sxm_x1.toml")
    assert (written.defaults, written.runs) == (shipped.defaults, shipped.runs)


def test_add_never_writes_over_a_file(systems, tmp_path):
    assert systems("add", "--name", "mine", gpus=[A100])[0] == 0
    path = tmp_path / "build" / "systems" / "mine.toml"
    before = path.read_bytes()
    status, _, errors = systems("add", "--name", "mine", gpus=[H100])
    assert status == 1
    assert "there is a configuration of this name" in errors
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "", " ", "a b"])
def test_add_refuses_what_is_no_name(systems, tmp_path, name):
    status, _, errors = systems("add", f"--name={name}", gpus=[A100])
    assert status == 4
    assert "cannot be the name of a system" in errors
    assert not (tmp_path / "build").exists()


def test_add_on_a_machine_without_a_gpu_is_for_its_processor(systems, tmp_path):
    assert systems("add", "--name", "mine", init_error="NVML_ERROR_LIBRARY_NOT_FOUND")[0] == 0
    match = read_system(tmp_path / "build" / "systems" / "mine.toml").match
    assert match.cpu
    assert len(match.cpu_names) == 1
    assert "configuration: mine (" in systems("detect", init_error="NVML_ERROR_LIBRARY_NOT_FOUND")[1]


def test_a_wrong_file_stops_every_action_and_is_named(systems, tmp_path):
    folder = tmp_path / "build" / "systems"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("schema = 1\nprecison = 'fp16'\n")
    for action in (["detect"], ["list"], ["show", "cpu"], ["add"]):
        status, _, errors = systems(*action)
        assert status == 1
        assert "mine.toml: precison: there is no such key" in errors


def test_an_action_is_needed_and_a_named_folder_has_to_be_there(capsys, systems):
    assert main(["systems"]) == 4
    assert "detect|list|show|add" in capsys.readouterr().err
    assert systems("list", "--systems-dir", "none")[0] == 4


def test_the_command_imports_no_library_that_would_make_a_context():
    code = (
        "import sys; from sdxl_engine.cli import main; status = main(['systems', 'detect'])\n"
        "print(status, sorted({'torch', 'cuda', 'tensorrt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n0 []\n")
