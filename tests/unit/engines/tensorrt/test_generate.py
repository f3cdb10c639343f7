"""The five builds around a stand-in for the child process: what is built, kept, linked, and what a failure does."""

import json
import sys
from types import SimpleNamespace

import pytest

from sdxl_engine.engines.cache import MANIFEST
from sdxl_engine.engines.tensorrt import generate as generating
from sdxl_engine.engines.tensorrt.generate import GenerateRequest, generate, outcome_line
from sdxl_engine.engines.tensorrt.library import Library
from sdxl_engine.engines.tensorrt.names import manifest_path
from sdxl_engine.errors import UsageError
from sdxl_engine.files import write_json
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS

# Reads the job as the real child does, writes what its name says, and ends as FAULTS tell it to.
CHILD = """
import hashlib, json, os, pathlib, signal, sys
job = json.load(sys.stdin)
network, plan = job["key"]["network"], pathlib.Path(job["plan"])
send = lambda message: os.write(int(sys.argv[-1]), json.dumps(message).encode() + b"\\n")
fault = json.loads(sys.argv[1]).get(network)
send({"phase": "optimizing graph: 50 % of the build done"})
if fault == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if fault == "crashes":
    print("terminate called after throwing an instance of 'std::bad_alloc'")
    os.abort()
if fault in ("EngineError", "UsageError"):
    send({"error": {"kind": fault, "what": f"{network}: so it is", "parts": {"got": "this", "from": "there"}}})
    sys.exit(1)
content = b"plan of " + network.encode()
plan.write_bytes(content)
manifest = {"schema": 1, "key": job["key"], "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
            "tensors": job["tensors"], "workspace_bytes": 1, "build_s": 0.5}
pathlib.Path(job["plan"] + ".json").write_text(json.dumps(manifest))
send({"manifest": manifest, "peak_host_bytes": 123_000_000})
"""

RTX = Library("tensorrt_rtx", "1.7.1.116", SimpleNamespace(ComputeCapability=SimpleNamespace(SM89=1)))


@pytest.fixture
def onnx(tmp_path, monkeypatch):
    """An export that is there already."""
    folder = tmp_path / "onnx"
    write_json(folder / MANIFEST, {"sha256": {f"{sub}/model.onnx": sub for sub in ONNX_FOLDERS.values()}})
    monkeypatch.setattr(generating, "exported_networks", lambda *_: folder)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, bundle, spec, onnx):
    """Generate: `run(faults={network: how}, **changes of the request)`; its `told` are the lines of progress."""
    monkeypatch.setattr(generating, "load", lambda: RTX)
    monkeypatch.setattr(generating, "find_gpu", lambda _: None)

    def call(faults=None, **changes):
        call.told = []
        request = {
            "checkpoint": bundle,
            "spec": spec,
            "cache": tmp_path / "engines",
            "model_opt": "DeepCache",
            "scenario": "Offline",
            "precision": "fp16",
            "images": dict.fromkeys(NETWORKS, 8),
        }
        command = (sys.executable, "-c", CHILD, json.dumps(faults or {}))
        return generate(GenerateRequest(**request | changes), call.told.append, command)

    return call


def outcomes(reports):
    return [report.outcome for report in reports]


def test_plans_lie_and_are_named_as_in_the_benchmark(run, tmp_path):
    reports = run(images=dict.fromkeys(NETWORKS, 8) | {"clip1": 64})
    folder = tmp_path / "engines" / "ahead-of-time-sm89" / "stable-diffusion-xl-shapes" / "Offline"
    assert [report.plan.relative_to(folder).as_posix() for report in reports] == [
        f"stable-diffusion-xl-{title}-Offline-gpu-b{batch}-fp16.custom_k_99_MaxP_DeepCache.plan"
        for title, batch in (("CLIP", 64), ("CLIPWithProj", 8), ("UNetXL", 8), ("ShallowUNetXL", 8), ("VAE", 8))
    ]
    assert outcomes(reports) == ["built"] * 5
    keys = {report.network: json.loads(manifest_path(report.plan).read_text())["key"] for report in reports}
    assert keys["clip1"]["rows"] == [2, 128, 128]
    assert keys["unet"]["rows"] == [2, 16, 16]
    assert keys["vae"]["rows"] == [1, 8, 8]
    assert {key["gpu"] for key in keys.values()} == {"any, ahead of time"}
    assert reports[0].peak_host_bytes == 123_000_000
    assert "unet: optimizing graph: 50 % of the build done" in run.told
    assert any(line.startswith("unet: built in ") and "peak host memory 123 MB" in line for line in run.told)


def test_plans_that_fit_are_kept_and_say_so(run):
    built = run()
    before = [report.plan.stat().st_mtime_ns for report in built]
    kept = run(faults=dict.fromkeys(NETWORKS, "crashes"))
    assert outcomes(kept) == ["kept"] * 5
    assert [report.plan.stat().st_mtime_ns for report in kept] == before
    assert "unet: kept, the plan there fits (0.0 MB)" in run.told
    assert outcomes(run(force=True)) == ["built"] * 5


def test_a_plan_that_does_not_fit_is_built_again_and_the_reason_said(run, onnx):
    run()
    digests = {f"{sub}/model.onnx": sub for sub in ONNX_FOLDERS.values()}
    write_json(onnx / MANIFEST, {"sha256": digests | {"unetxl/deep/model.onnx": "changed"}})
    assert outcomes(run()) == ["kept", "kept", "built", "kept", "kept"]
    assert any(
        line.startswith("unet: built") and "is stale: the model's ONNX file has changed" in line for line in run.told
    )


def test_no_opt_and_deep_cache_are_the_same_five_plans(run):
    deep_cache = run()
    no_opt = run(model_opt="NoOpt", faults=dict.fromkeys(NETWORKS, "crashes"))
    assert outcomes(no_opt) == ["linked"] * 5
    for one, other in zip(deep_cache, no_opt, strict=True):
        assert one.plan != other.plan
        assert one.plan.samefile(other.plan)
    assert outcomes(run(model_opt="NoOpt")) == ["kept"] * 5


def test_a_child_that_is_killed_does_not_take_the_others_down(run):
    reports = run(faults={"unet": "killed", "clip2": "crashes"})
    assert outcomes(reports) == ["built", "failed", "failed", "built", "built"]
    assert "if nobody sent it, the kernel did for lack of memory" in reports[2].reason
    assert "--batch-size unet=N" in reports[2].reason
    assert "killed by SIGABRT" in reports[1].reason
    assert any(line.startswith("unet: FAILED after") for line in run.told)
    log = next(reports[1].plan.parent.glob("*CLIPWithProj*.child.log"))
    assert "std::bad_alloc" in log.read_text()
    assert str(log) in reports[1].reason
    again = run()
    assert outcomes(again) == ["kept", "built", "built", "kept", "kept"]


def test_a_network_that_tensorrt_does_not_build_is_reported_with_its_reason(run):
    reports = run(faults={"vae": "EngineError"})
    assert outcomes(reports) == ["built"] * 4 + ["failed"]
    assert outcome_line(reports[-1]).endswith("vae: so it is\n  got:      this\n  from:     there")


def test_an_option_that_cannot_work_ends_it_at_once(run):
    with pytest.raises(UsageError, match="clip2: so it is"):
        run(faults={"clip2": "UsageError"})


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_precisions_without_an_export_are_refused(run, precision):
    with pytest.raises(UsageError, match=f"no ONNX export in {precision}"):
        run(precision=precision)


def test_a_decoder_that_overflows_in_fp16_stays_in_fp32_with_tf32(run, spec):
    import dataclasses

    reports = run(spec=dataclasses.replace(spec, upcast_decoder=True))
    manifest = json.loads(manifest_path(reports[-1].plan).read_text())
    assert "-b8-fp32." in reports[-1].plan.name
    assert manifest["key"]["flags"] == ["STRONGLY_TYPED", "TF32"]
    assert manifest["tensors"]["latent"]["dtype"] == "float32"
    assert json.loads(manifest_path(reports[2].plan).read_text())["tensors"]["latent"]["dtype"] == "float16"
