"""The configurations that come with the package."""

import os
import runpy
import subprocess
import sys
import zipfile

import pytest
from machines import KNOWN, UNKNOWN

from sdxl_engine.errors import AssetError
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.systems.catalogue import read_catalogue, shipped_folder
from sdxl_engine.systems.estimate import needed_bytes, usable_bytes

MACHINES = [(name, machine) for name, machines in KNOWN.items() for machine in machines]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return read_catalogue(tmp_path_factory.mktemp("build"), None, {})


def test_there_is_a_machine_for_each_file(catalogue):
    assert [config.name for config in catalogue.systems] == sorted(KNOWN)


@pytest.mark.parametrize(("name", "machine"), MACHINES, ids=[f"{name}-{at}" for at, (name, _) in enumerate(MACHINES)])
def test_a_machine_matches_its_own_file_and_no_other(catalogue, name, machine):
    fitting = [config.name for config in catalogue.systems if config.match.mismatch(machine) is None]
    assert fitting == [name]
    assert catalogue.match(machine) is catalogue.named(name)


@pytest.mark.parametrize("machine", UNKNOWN.values(), ids=UNKNOWN)
def test_other_machines_match_none(catalogue, machine):
    assert catalogue.match(machine) is None


@pytest.mark.parametrize(("name", "machine"), MACHINES, ids=[f"{name}-{at}" for at, (name, _) in enumerate(MACHINES)])
def test_the_full_size_networks_fit_the_machines_memory(catalogue, name, machine):
    run = catalogue.named(name).defaults
    assert run.devices == max(1, len(machine.gpus))
    for gpu in machine.gpus:
        assert needed_bytes(run.precision, run.gpu_batch_size) <= usable_bytes(gpu.memory_bytes)
        assert run.workspace_gib * 2**30 <= gpu.memory_bytes


def test_nvidias_results_are_there_and_no_figure_is_without_a_source(catalogue):
    h100 = catalogue.named("h100_sxm_x1")
    figures = {opt: h100.run("Offline", opt).offline_expected_qps for opt in ("NoOpt", "DeepCache", "DeepCachePruned")}
    assert figures == {"NoOpt": 1.64178, "DeepCache": 2.85204, "DeepCachePruned": 3.80537}
    assert h100.run("Offline", "DeepCache").gpu_batch_size == dict.fromkeys(NETWORKS, 8)
    for config in catalogue.systems:
        for run in config.runs.values():
            assert ("MLPerf Inference v" in run.source) == (run.offline_expected_qps is not None)
        assert len(config.runs) in (0, 1, 3)
        text = config.path.read_text()
        assert ("no figure was found" in text) == (len(config.runs) < 3 and config.name != "cpu")


def test_a_checkout_has_them_beside_the_package(tmp_path, request):
    assert shipped_folder() == request.config.rootpath / "configs" / "stable-diffusion-xl"
    with pytest.raises(AssetError, match="missing from this installation"):
        shipped_folder((tmp_path,))


def test_the_wheel_has_them_in_the_package(tmp_path, request):
    """Built from this checkout; what is unpacked finds its own."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (path,) = wheel.WheelBuilder(str(request.config.rootpath)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    code = "from sdxl_engine.systems.catalogue import shipped_folder; print(*sorted(shipped_folder().glob('*.toml')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "site",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path / "site" / "sdxl_engine" / "systems" / "configs"
    assert done.stdout.split() == [str(folder / f"{name}.toml") for name in sorted(KNOWN)]


def test_the_documentations_tables_are_those_of_the_code_and_the_files(request):
    docs = request.config.rootpath / "docs"
    made = runpy.run_path(str(docs / "make_systems_tables.py"))["page"]
    text = (docs / "systems.md").read_text()
    assert text == made(text), "run python docs/make_systems_tables.py"
    assert all(f"| `{name}` |" in text for name in (*KNOWN, "gpu_batch_size", "cpu_names", "schema"))


def test_a_configuration_is_json(catalogue):
    value = catalogue.named("rtx_4090_x1").to_json()
    assert value["defaults"]["gpu_batch_size"]["vae"] == 4
    assert catalogue.named("rtx_4090_x1").defaults.common_batch == 4
