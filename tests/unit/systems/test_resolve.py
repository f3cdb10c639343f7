"""Which configuration a machine gets."""

import itertools
import sys

import pytest
from fake_nvml import FakeGpu, FakeNvml
from machines import CPU, KNOWN, UNKNOWN, machine

from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.models.spec import NETWORKS, ModelSpec
from sdxl_engine.systems.catalogue import read_catalogue
from sdxl_engine.systems.estimate import BATCHES, BUFFERS, MIB, fitting_batch, needed_bytes, usable_bytes
from sdxl_engine.systems.machine import GIB, Machine
from sdxl_engine.systems.resolve import resolve, system_config

FILE = """\
schema = 1
description = "mine"
[match]
{match}
[defaults]
precision = "fp16"
use_graphs = true
gpu_batch_size = 2
"""
ANY_H100 = 'gpu_names = ["NVIDIA H100*"]\ngpu_count = 1'


def write(folder, name, match=ANY_H100):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(FILE.format(match=match))
    return folder


def test_a_known_machine_gets_its_file_and_no_note(tmp_path):
    resolved = resolve(read_catalogue(tmp_path, None, {}), machine())
    assert (resolved.config.name, resolved.notes) == ("h100_sxm_x1", ())
    assert resolved.line == "h100_sxm_x1 (1 x NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0)"


def test_the_users_files_win(tmp_path):
    build, named = tmp_path / "build", write(tmp_path / "named", "third")
    write(build / "systems", "second")
    write(build / "systems", "cpu", "cpu = true")

    def name(systems_dir, environ, which=None):
        return resolve(read_catalogue(build, systems_dir, environ), which or machine()).config.name

    assert name(None, {}) == "second"
    assert name(named, {}) == "third"
    assert name(None, {"SDXL_SYSTEMS_DIR": str(named)}) == "third"
    catalogue = read_catalogue(build, build / "systems", {"SDXL_SYSTEMS_DIR": str(named)})
    assert catalogue.match(machine()).name == "second", "the option goes before the variable"
    assert catalogue.named("cpu").description == "mine", "a name of the user's hides a shipped one"
    assert catalogue.match(CPU) is catalogue.named("cpu")


def test_two_files_for_one_machine_are_an_error_that_names_both(tmp_path):
    write(write(tmp_path / "systems", "first"), "second")
    with pytest.raises(AssetError, match="more than one configuration") as caught:
        resolve(read_catalogue(tmp_path, None, {}), machine())
    assert "first.toml" in caught.value.parts["got"]
    assert "second.toml" in caught.value.parts["got"]
    assert resolve(read_catalogue(tmp_path, None, {}), CPU).config.name == "cpu"


def test_a_folder_that_is_named_has_to_be_there(tmp_path):
    for systems_dir, environ, source in (
        (tmp_path / "none", {}, "--systems-dir"),
        (None, {"SDXL_SYSTEMS_DIR": str(tmp_path / "none")}, "SDXL_SYSTEMS_DIR"),
    ):
        with pytest.raises(UsageError, match="is missing") as caught:
            read_catalogue(tmp_path, systems_dir, environ)
        assert caught.value.parts["from"] == source


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ('gpu_names = ["nvidia h100*"]\ngpu_count = 1', False),
        ('gpu_names = ["NVIDIA A100", "NVIDIA H100 80GB HBM?"]\ngpu_count = 1', True),
        ('gpu_names = ["NVIDIA H100*"]\ngpu_count = 2', False),
        ('gpu_names = ["*"]\ngpu_count = 1\ngpu_memory_gib = [79.6, 79.7]', True),
        ('gpu_names = ["*"]\ngpu_count = 1\ngpu_memory_gib = [80, 90]', False),
        ("cpu = true", False),
    ],
)
def test_names_count_and_memory_all_have_to_fit(tmp_path, match, fits):
    write(tmp_path / "systems", "mine", match)
    assert (read_catalogue(tmp_path, None, {}).match(machine()).name == "mine") is fits


def test_a_file_may_be_for_one_processor(tmp_path):
    write(tmp_path / "systems", "mine", 'cpu = true\ncpu_names = ["AMD*"]')
    catalogue = read_catalogue(tmp_path, None, {})
    assert catalogue.match(Machine("AMD EPYC 9575F", 8, GIB)).name == "mine"
    assert catalogue.match(CPU).name == "cpu"
    assert catalogue.named("mine").match.mismatch(CPU) == "it is for the processor AMD*"


@pytest.mark.parametrize("which", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_machine_gets_a_computed_configuration_and_a_note(tmp_path, which):
    resolved = resolve(read_catalogue(tmp_path, None, {}), which)
    assert (resolved.config.name, resolved.config.path) == ("computed", None)
    assert resolved.config.match.mismatch(which) is None
    assert resolved.config.defaults.devices == len(which.gpus)
    assert resolved.config.run("Offline", "DeepCache").offline_expected_qps is None
    (note,) = resolved.notes
    assert note.startswith("no file is for this machine")
    assert "sdxl-engine systems add" in note
    assert resolved.line.endswith(note)


def test_the_note_names_files_that_are_nearly_right(tmp_path):
    (note,) = resolve(read_catalogue(tmp_path, None, {}), machine(count=4)).notes
    near = "(nearest: h100_sxm_x1: it is for 1 GPU, 4 visible; h100_sxm_x8: it is for 8 GPUs, 4 visible)"
    assert near in note


def unknown(gib, capability=(8, 6), count=1):
    return machine("NVIDIA Unknown", int(gib * 1024), count, capability)


def test_a_computed_batch_grows_with_memory_and_fits(tmp_path):
    catalogue = read_catalogue(tmp_path, None, {})
    runs = {gib: resolve(catalogue, unknown(gib)).config.defaults for gib in (12, 16, 24, 40, 80)}
    sizes = [(run.gpu_batch_size["unet"], run.gpu_batch_size["vae"]) for run in runs.values()]
    assert sizes == [(2, 1), (4, 2), (8, 4), (8, 8), (8, 8)]
    for gib, run in runs.items():
        assert needed_bytes(run.precision, run.gpu_batch_size) <= usable_bytes(gib * GIB) < gib * GIB
        assert list(run.gpu_batch_size) == list(NETWORKS)
        assert run.workspace_gib == gib / 2


def test_no_more_memory_ever_means_a_smaller_batch():
    for precision in ("fp32", "fp16", "fp8"):
        found = [fitting_batch(tenths * GIB // 10, precision)[0] for tenths in range(10, 1000)]
        for less, more in itertools.pairwise(found):
            assert all(less[network] <= more[network] for network in NETWORKS)
        assert (found[-1]["unet"], found[-1]["vae"]) == BATCHES[-1]


def test_a_gpu_that_is_too_small_is_told_so(tmp_path):
    resolved = resolve(read_catalogue(tmp_path, None, {}), unknown(8))
    assert "the full-size networks do not fit: fp16 at batch 1 needs about 1" in resolved.notes[0]
    assert "7.2 of 8.0 GiB can be planned with" in resolved.notes[0]
    assert set(resolved.config.defaults.gpu_batch_size.values()) == {1}


def test_precision_follows_the_compute_capability_and_is_never_8_bit(tmp_path):
    catalogue = read_catalogue(tmp_path, None, {})
    for capability, precision in (((6, 1), "fp32"), ((7, 0), "fp16"), ((10, 0), "fp16")):
        assert resolve(catalogue, unknown(80, capability)).config.defaults.precision == precision


def test_unlike_gpus_are_run_as_the_smallest(tmp_path):
    mixed = Machine("a processor", 8, GIB, (*machine().gpus, *unknown(12).gpus), "580")
    resolved = resolve(read_catalogue(tmp_path, None, {}), mixed)
    assert resolved.config.defaults.gpu_batch_size["unet"] == 2
    assert "the GPUs differ, and all are run as the smallest one" in resolved.notes[0]
    assert resolved.config.match.mismatch(mixed) is None


def test_the_buffers_are_those_of_the_pipeline():
    full = ModelSpec(77, (768, 1280), 1280, 4, 128, 1024, (320, 640, 1280), 0.13025, upcast_decoder=True).networks
    values = 0
    for network in ("clip1", "clip2", "unet", "vae"):
        for tensor in (full[network].inputs | full[network].outputs).values():
            count = 1
            for length in tensor.at(full[network].rows(1)):
                count *= length
            values += count
    assert BUFFERS - MIB < 4 * values <= BUFFERS


def test_notes_tell_of_a_driver_that_does_not_answer_and_of_hidden_gpus(tmp_path, monkeypatch):
    broken = FakeNvml([], "NVML_ERROR_LIB_RM_VERSION_MISMATCH").module()
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    resolved = system_config(tmp_path, None, {})
    assert resolved.config.name == "cpu"
    assert resolved.notes == ("the NVIDIA driver does not answer: NVML_ERROR_LIB_RM_VERSION_MISMATCH",)
    eight = FakeNvml([FakeGpu("NVIDIA H100 80GB HBM3", 81559) for _ in range(8)]).module()
    monkeypatch.setitem(sys.modules, "pynvml", eight)
    resolved = system_config(tmp_path, None, {"CUDA_VISIBLE_DEVICES": "3"})
    assert resolved.config.name == "h100_sxm_x1"
    assert resolved.notes == ("CUDA_VISIBLE_DEVICES='3' leaves 1 of this machine's 8 GPUs",)
    assert resolved.to_json()["machine"]["gpus"][0]["uuid"] == "GPU-00000003-0000"


def test_every_known_machine_would_get_a_like_configuration_without_its_file(tmp_path):
    """The memory model does not contradict the files: computed, no known GPU gets a smaller batch than its file has."""
    for name, machines in KNOWN.items():
        for each in machines:
            if each.gpus:
                computed, _ = fitting_batch(each.gpus[0].memory_bytes, "fp16")
                shipped = read_catalogue(tmp_path, None, {}).named(name).defaults.gpu_batch_size
                assert all(computed[network] >= shipped[network] for network in NETWORKS)
