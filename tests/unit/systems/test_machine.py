"""Detection, on an NVML that tells of GPUs which are not there."""

import subprocess
import sys

import pytest
from fake_nvml import CODES, FakeGpu, FakeNvml

from sdxl_engine.systems.machine import GIB, detect, host_memory
from sdxl_engine.systems.nvml import find_gpus
from sdxl_engine.systems.visible import visible

H100 = "NVIDIA H100 80GB HBM3"
HOST = 64 * GIB


def h100(**options):
    return FakeGpu(H100, 81559, **options)


@pytest.fixture
def find(monkeypatch, tmp_path):
    """What is found with some GPUs and some environment variables."""

    def call(*gpus, init_error="", **environ):
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(list(gpus), init_error).module())
        return find_gpus(environ, HOST, tmp_path / "no_driver")

    return call


def test_one_gpu_has_its_name_memory_and_ids(find):
    found = find(h100())
    (gpu,) = found.gpus
    assert (gpu.name, gpu.memory_bytes, gpu.pci_id, gpu.compute_capability) == (H100, 81559 << 20, "10de:2330", (9, 0))
    assert (found.driver, found.error, found.notes, gpu.mig) == ("580.95.05", None, (), False)
    assert str(gpu) == "NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0"


def test_eight_gpus_and_gpus_without_memory_of_their_own(find):
    assert [gpu.uuid[-6] for gpu in find(*[h100() for _ in range(8)]).gpus] == list("01234567")
    (gpu,) = find(FakeGpu("NVIDIA GB10", None, (12, 1))).gpus
    assert gpu.memory_bytes == HOST


def test_a_machine_without_a_driver_has_no_gpus_and_nothing_to_say(find, monkeypatch, tmp_path):
    nothing = find(init_error="NVML_ERROR_LIBRARY_NOT_FOUND")
    assert (nothing.gpus, nothing.driver, nothing.error, nothing.notes) == ((), None, None, ())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus({}, HOST, tmp_path / "no_driver") == nothing


def test_a_driver_that_cannot_be_asked_is_told_apart(find, monkeypatch, tmp_path):
    broken = find(h100(), init_error="NVML_ERROR_LIB_RM_VERSION_MISMATCH")
    assert broken.gpus == ()
    assert broken.error == "the NVIDIA driver does not answer: NVML_ERROR_LIB_RM_VERSION_MISMATCH"
    assert find(h100(), h100(error="NVML_ERROR_GPU_IS_LOST")).error.endswith("NVML_ERROR_GPU_IS_LOST")
    stopped = find(init_error="NVML_ERROR_DRIVER_NOT_LOADED")
    assert (stopped.error, stopped.notes) == (None, ("NVIDIA's library is installed, but its driver is not loaded",))
    (tmp_path / "version").touch()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus({}, HOST, tmp_path / "version").error.endswith("pip install 'pytest-sdxl[nvml]'")


def test_a_gpu_without_access_is_left_out_and_said(find):
    found = find(h100(error="NVML_ERROR_NO_PERMISSION"), h100())
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-00000001-0000"]
    assert found.notes == ("this process has no access to GPU 0",)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("1gpu", [1]),
        ("0,2,-1,1", [0, 2]),
        ("0,7,1", [0]),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,1", []),
        ("GPU-b1", [1]),
        ("GPU-b2000000,GPU-aa", [2, 0]),
        ("GPU-b", []),
        ("GPU-aa,1", [0]),
        ("GPU-aa,", [0]),
        ("MIG-aa", []),
    ],
)
def test_cuda_visible_devices(value, seen):
    assert visible(value, ["GPU-aa000000", "GPU-b1000000", "GPU-b2000000"]) == seen


def test_what_cuda_visible_devices_hides_is_said(find):
    found = find(h100(), h100(), h100(), CUDA_VISIBLE_DEVICES="2,1")
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-00000002-0000", "GPU-00000001-0000"]
    assert found.notes == ("CUDA_VISIBLE_DEVICES='2,1' leaves 2 of this machine's 3 GPUs",)
    assert find(h100(), CUDA_VISIBLE_DEVICES="").gpus == ()


def test_indices_of_unlike_gpus_depend_on_cudas_order(find):
    gpus = [FakeGpu("NVIDIA RTX A2000", 6138, (8, 6)), h100()]
    unlike = "the GPUs differ: set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that CUDA counts them as NVML does"
    assert unlike in find(*gpus, CUDA_VISIBLE_DEVICES="1").notes
    assert unlike not in find(*gpus, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID").notes
    assert unlike not in find(*gpus, CUDA_VISIBLE_DEVICES="GPU-00000001").notes
    assert unlike not in find(h100(), h100(), CUDA_VISIBLE_DEVICES="1").notes


def slice_(gigabytes):
    return FakeGpu(f"{H100} MIG 1g.{gigabytes}gb", gigabytes * 1000)


def test_of_mig_instances_cuda_sees_the_first_alone(find):
    one = "CUDA gives a process one MIG instance and no GPU beside it: the first of 3"
    found = find(h100(instances=[None, slice_(10), slice_(20)]), h100())
    assert [(gpu.name, gpu.mig, gpu.pci_id) for gpu in found.gpus] == [(f"{H100} MIG 1g.10gb", True, "10de:2330")]
    assert found.notes == (one,)
    (chosen,) = find(h100(instances=[slice_(10), slice_(20)]), CUDA_VISIBLE_DEVICES="MIG-00000001").gpus
    assert chosen.name == f"{H100} MIG 1g.20gb"
    (whole,) = find(h100(instances=[slice_(10)]), h100(), CUDA_VISIBLE_DEVICES="1").gpus
    assert not whole.mig
    none = find(h100(instances=[]))
    assert (none.gpus, none.notes) == ((), ("GPU 0 is in MIG mode and has no instance: CUDA does not see it",))


def test_the_control_groups_limit_counts_where_it_is_lower(tmp_path):
    machine = host_memory(())
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", machine), ("1048576\n", 1048576), (f"{machine * 2}\n", machine)):
        limit.write_text(text)
        assert host_memory((tmp_path / "missing", limit)) == expected


def test_a_machine_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([h100(), FakeGpu("NVIDIA L4", 23034), h100()]).module())
    machine = detect({})
    assert machine.summary == (
        "2 x NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0; 1 x NVIDIA L4, 22.5 GiB, compute capability 9.0"
    )
    assert machine.cores >= 1
    assert "no GPU" in detect({"CUDA_VISIBLE_DEVICES": ""}).summary


def test_the_real_nvml_has_every_name_and_code_that_is_used():
    nvml = pytest.importorskip("pynvml")
    used = [name for name in dir(FakeNvml) if name.startswith("nvml")]
    assert [name for name in used if not callable(getattr(nvml, name, None))] == []
    assert {name: getattr(nvml, name) for name in CODES} == CODES
    assert nvml.NVMLError(9).value == 9


def test_detection_loads_nothing_that_makes_a_context():
    code = (
        "import sys, pathlib; from sdxl_engine.systems.machine import detect; detect()\n"
        "heavy = {'torch', 'numpy', 'cuda', 'tensorrt', 'onnxruntime'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
        "print('libcuda' in pathlib.Path('/proc/self/maps').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"
