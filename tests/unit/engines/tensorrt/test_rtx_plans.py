"""The five `shapes` plans, really built by TensorRT-RTX, without a GPU, in child processes.

They are built once: first with so little memory that the deep UNet does not get through, then what is missing. A plan
cannot be deserialised without CUDA's driver, so names, shapes and dtypes are read from TensorRT's own network
definition (the builder compares them), and names and the profile's shapes once more from the plan's bytes.
"""

import dataclasses
import json
import shutil
import struct

import pytest

pytest.importorskip("tensorrt_rtx")

import tensorrt_rtx as trt

from sdxl_engine.engines.tensorrt.build import build
from sdxl_engine.engines.tensorrt.generate import GenerateRequest, generate
from sdxl_engine.engines.tensorrt.gpu import find_gpu
from sdxl_engine.engines.tensorrt.job import BuildJob
from sdxl_engine.engines.tensorrt.library import load
from sdxl_engine.engines.tensorrt.messages import Messages
from sdxl_engine.engines.tensorrt.names import manifest_path
from sdxl_engine.engines.tensorrt.parent import CHILD
from sdxl_engine.engines.tensorrt.plan import check, read_manifest
from sdxl_engine.engines.tensorrt.tensors import engine_rows, engine_tensors, expected_tensors
from sdxl_engine.errors import AssetError, EngineError, UsageError
from sdxl_engine.export.exported import exported_networks, interfaces
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

if load().name != "tensorrt_rtx":
    pytest.skip("TensorRT is installed here, and comes before TensorRT-RTX", allow_module_level=True)

CAPABILITY = "8.9"
IMAGES = {"clip1": 16, "clip2": 16, "unet": 8, "shallow_unet": 8, "vae": 4}
LITTLE_MEMORY = ("sh", "-c", 'ulimit -v 750000; exec "$0" "$@"', *CHILD)
"""750 MB of addresses: the text encoders get by with 600, the deep UNet needs 1.2 GB (TensorRT-RTX 1.7.1)."""


@pytest.fixture(scope="module")
def request_for(bundle, spec, build_dir):
    def make(**changes):
        values = {"checkpoint": bundle, "spec": spec, "cache": build_dir / "engines", "model_opt": "DeepCache"}
        values |= {"scenario": "Offline", "precision": "fp16", "images": IMAGES, "workspace_gib": 0.25}
        return GenerateRequest(**values | {"compute_capabilities": (CAPABILITY,)} | changes)

    return make


@pytest.fixture(scope="module")
def short_of_memory(request_for):
    request = request_for()
    # Plans of an earlier session would be kept.
    shutil.rmtree(request.cache / f"ahead-of-time-sm{CAPABILITY.replace('.', '')}", ignore_errors=True)
    return generate(request, lambda _: None, LITTLE_MEMORY)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def reports(request_for, short_of_memory, told):
    """By network: the five plans, built or kept from the first try."""
    return {report.network: report for report in generate(request_for(), told.append)}


@pytest.fixture(scope="module")
def onnx(bundle, spec, build_dir):
    return exported_networks(bundle, spec, build_dir / "engines", "fp16")


def test_a_network_that_runs_out_of_memory_does_not_take_the_others_down(short_of_memory, reports):
    first = {report.network: report for report in short_of_memory}
    assert first["unet"].outcome == "failed"
    # TensorRT reports std::bad_alloc, or does not survive it: then the child ends by a signal.
    assert "bad_alloc" in first["unet"].reason or "killed by SIG" in first["unet"].reason
    assert "--batch-size unet=N" in first["unet"].reason
    assert (first["clip1"].outcome, first["shallow_unet"].outcome) == ("built", "built")
    assert (reports["clip1"].outcome, reports["unet"].outcome) == ("kept", "built")


def test_all_five_are_built_with_figures_and_progress(reports, told):
    assert list(reports) == list(NETWORKS)
    assert {report.outcome for report in reports.values()} <= {"built", "kept"}
    unet = reports["unet"]
    assert unet.plan_bytes == unet.plan.stat().st_size
    assert unet.plan_bytes > 10e6
    assert 500e6 < unet.peak_host_bytes < 4e9
    assert unet.seconds > 1
    phases = [line for line in told if line.startswith("unet: ") and "% of the build done" in line]
    assert 3 <= len(phases) <= 12


@pytest.mark.parametrize("network", NETWORKS)
def test_names_shapes_and_dtypes_are_the_interfaces(reports, spec, network):
    manifest = read_manifest(reports[network].plan, "")
    assert manifest.tensors == expected_tensors(interfaces(spec, "fp16")[network])
    content = reports[network].plan.read_bytes()
    for name in manifest.tensors:
        assert name.encode() in content, f"the plan does not name {name}"


def test_the_deep_unets_features_are_the_shallow_unets_inputs(reports):
    tensors = {name: read_manifest(reports[name].plan, "").tensors for name in ("unet", "shallow_unet")}
    for name, channels in (("down.0.res_samples.0", 40), ("down.0.res_samples.1", 40), ("up.1.sample", 80)):
        tensor = {"dtype": "float16", "shape": [-1, channels, 16, 16]}
        assert tensors["unet"][name] == tensor | {"mode": "output"}
        assert tensors["shallow_unet"][name] == tensor | {"mode": "input"}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_plan_holds_one_profile_with_the_batches_asked_for(reports, spec, network):
    """TensorRT writes the smallest, best and largest shape of an input one after the other, as 64-bit integers."""
    interface = spec.networks[network]
    most = interface.rows(IMAGES[network])
    rows = (interface.rows(1), most, most)
    assert read_manifest(reports[network].plan, "").key.rows == rows
    content = reports[network].plan.read_bytes()
    for name, tensor in interface.inputs.items():
        if tensor.batched:
            places = [content.find(struct.pack(f"<{len(tensor.at(0))}q", *tensor.at(count))) for count in rows]
            assert 0 < places[0] < places[1] == places[2], name
            assert content.count(struct.pack(f"<{len(tensor.at(0))}q", *tensor.at(most + 1))) == 0


@pytest.mark.parametrize("network", NETWORKS)
def test_what_can_be_deserialised_here_says_the_same(reports, spec, network):
    """Without a GPU nothing can: TensorRT-RTX asks for a CUDA stream first."""
    plan = reports[network].plan
    messages = Messages()
    gpu = find_gpu()
    engine = trt.Runtime(messages).deserialize_cuda_engine(plan.read_bytes())
    if gpu is None or gpu.compute_capability != CAPABILITY:
        assert engine is None
        assert gpu is not None or "cudaError" in messages.errors
        return
    assert engine_tensors(engine) == expected_tensors(interfaces(spec, "fp16")[network])
    assert engine_rows(engine) == read_manifest(plan, "").key.rows


def test_a_corrupted_plan_is_refused_before_tensorrt_sees_it(reports, tmp_path):
    source = reports["clip1"].plan
    manifest = read_manifest(source, "")
    plan = tmp_path / source.name
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    manifest_path(plan).write_text(manifest_path(source).read_text())
    with pytest.raises(AssetError, match="is damaged: its content has changed"):
        check(plan, manifest.key, "")


def test_no_opt_takes_the_same_five_plans(reports, request_for):
    no_opt = generate(request_for(model_opt="NoOpt"), lambda _: None)
    assert {report.outcome for report in no_opt} <= {"linked", "kept"}
    for report in no_opt:
        assert report.plan.samefile(reports[report.network].plan)
        assert read_manifest(report.plan, "").key == read_manifest(reports[report.network].plan, "").key


@pytest.mark.usefixtures("onnx")  # from which all but the deep UNet's ONNX file are taken
def test_the_pruned_variant_has_a_deep_unet_of_its_own(reports, request_for):
    pruned = {report.network: report for report in generate(request_for(model_opt="DeepCachePruned"), lambda _: None)}
    assert {name for name, report in pruned.items() if report.plan.samefile(reports[name].plan)} == {*NETWORKS} - {
        "unet"
    }
    assert pruned["unet"].plan_bytes < 0.7 * reports["unet"].plan_bytes
    plans = [read_manifest(each["unet"].plan, "") for each in (pruned, reports)]
    assert plans[0].tensors == plans[1].tensors
    assert plans[0].key.onnx_sha256 != plans[1].key.onnx_sha256


@pytest.fixture
def job(reports, onnx, tmp_path):
    """A job that has been done: clip1 once more, elsewhere."""
    manifest = read_manifest(reports["clip1"].plan, "")
    return BuildJob(
        key=manifest.key,
        onnx=onnx / ONNX_FOLDERS["clip1"] / "model.onnx",
        plan=tmp_path / "clip1.plan",
        tensors=manifest.tensors,
        device=None,
        workspace_gib=0.25,
        timing_cache=None,
    )


def test_another_interface_than_the_projects_is_refused(job):
    tensors = job.tensors | {"hidden_states": job.tensors["hidden_states"] | {"dtype": "float32"}}
    with pytest.raises(EngineError, match="TensorRT sees other inputs and outputs") as caught:
        build(dataclasses.replace(job, tensors=tensors), lambda _: None)
    assert "hidden_states" in caught.value.parts["got"]
    assert not job.plan.exists()


def test_a_file_that_is_no_onnx_is_refused(job, tmp_path):
    broken = tmp_path / "broken" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(job.onnx.read_bytes()[:10_000])
    with pytest.raises(EngineError, match="does not read the ONNX file"):
        build(dataclasses.replace(job, onnx=broken), lambda _: None)


def test_a_workspace_larger_than_memory_is_refused_in_the_child(request_for):
    with pytest.raises(UsageError, match="workspace does not fit in free memory"):
        generate(request_for(force=True, workspace_gib=1e6), lambda _: None)


def test_the_manifest_says_what_it_was_built_with(reports):
    values = json.loads(manifest_path(reports["unet"].plan).read_text())
    assert values["schema"] == 1
    assert values["key"] | {"onnx_sha256": None} == {
        "network": "unet",
        "onnx_sha256": None,
        "precision": "fp16",
        "library": "tensorrt_rtx",
        "version": trt.__version__,
        "gpu": "any, ahead of time",
        "compute_capabilities": [CAPABILITY],
        "flags": ["STRONGLY_TYPED"],
        "rows": [2, 16, 16],
    }
    assert values["workspace_bytes"] == 1 << 28
