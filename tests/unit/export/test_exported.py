"""The exported ONNX files in fp16, run by ONNX Runtime, against the fp32 modules."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import torch

from sdxl_engine.engines.cache import MANIFEST
from sdxl_engine.errors import UsageError
from sdxl_engine.export.exported import exported_networks, interfaces, network_precision, onnx_digest
from sdxl_engine.files import write_json
from sdxl_engine.models.load import load_networks
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS


@pytest.fixture(scope="module")
def modules(bundle):
    return load_networks(bundle)


def inputs(spec, network, images):
    """Plausible inputs in fp32, as arrays."""
    rng = np.random.default_rng(images)
    interface = spec.networks[network]
    found = {}
    for name, tensor in interface.inputs.items():
        shape = tensor.at(interface.rows(images))
        if tensor.dtype == "int32":
            found[name] = rng.integers(1, 600, shape).astype(np.int32)
            found[name][:, 20:] = 636  # end of text, then padding
        elif name == "timestep":
            found[name] = np.array([651], np.float32)
        elif name == "time_ids":
            found[name] = np.tile(np.array(spec.time_ids, np.float32), (shape[0], 1))
        else:
            found[name] = rng.standard_normal(shape).astype(np.float32)
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_fp16_computes_what_fp32_does(bundle, spec, build_dir, modules, network):
    folder = exported_networks(bundle, spec, build_dir / "engines", "fp16")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / ONNX_FOLDERS[network] / "model.onnx", options)
    interface = interfaces(spec, "fp16")[network]
    for tensors, found in ((interface.inputs, session.get_inputs()), (interface.outputs, session.get_outputs())):
        dtypes = {"float16": "tensor(float16)", "float32": "tensor(float)", "int32": "tensor(int32)"}
        assert [(node.name, node.type) for node in found] == [
            (name, dtypes[tensor.dtype]) for name, tensor in tensors.items()
        ]
    given = inputs(spec, network, 3)
    with torch.inference_mode():
        wanted = modules[network](*map(torch.from_numpy, given.values()))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    got = session.run(None, {name: array.astype(interface.inputs[name].dtype) for name, array in given.items()})
    for name, expected, array in zip(interface.outputs, wanted, got, strict=True):
        error = np.linalg.norm(array.astype(np.float32) - expected.numpy()) / np.linalg.norm(expected)
        assert error < 2e-3, f"{network}, output {name}: relative error {error:.1e}"


def test_only_what_must_not_be_rounded_stays_in_fp32(spec):
    networks = interfaces(spec, "fp16")
    assert {
        (network, name)
        for network, interface in networks.items()
        for name, tensor in (interface.inputs | interface.outputs).items()
        if tensor.dtype == "float32"
    } == {("unet", "timestep"), ("shallow_unet", "timestep")}
    upcast = dataclasses.replace(spec, upcast_decoder=True)
    assert interfaces(upcast, "fp16")["vae"] == spec.networks["vae"]
    assert [network_precision(upcast, name, "fp16") for name in ("unet", "vae")] == ["fp16", "fp32"]
    assert network_precision(spec, "vae", "fp16") == "fp16"
    assert interfaces(upcast, "fp32") == spec.networks


@pytest.mark.parametrize("precision", ["int8", "fp8", "bf16"])
def test_other_precisions_are_refused(spec, precision):
    with pytest.raises(UsageError, match=f"no ONNX export in {precision}"):
        interfaces(spec, precision)


def test_a_decoder_that_overflows_is_loaded_in_fp32(bundle):
    loaded = load_networks(bundle, torch.float16, torch.float32)
    dtypes = {name: {weight.dtype for weight in module.parameters()} for name, module in loaded.items()}
    assert dtypes == {name: {torch.float32 if name == "vae" else torch.float16} for name in NETWORKS}


def test_a_digest_is_of_one_networks_files(tmp_path):
    files = {"unetxl/deep/model.onnx": "1", "unetxl/deep/model.onnx.data": "2", "unetxl/shallow/model.onnx": "3"}

    def digests(**changes):
        folder = tmp_path / json.dumps(changes).replace("/", "_")
        write_json(folder / MANIFEST, {"sha256": files | changes})
        return [onnx_digest(folder, network) for network in ("unet", "shallow_unet")]

    deep, shallow = digests()
    assert deep != shallow
    assert digests(**{"unetxl/deep/model.onnx.data": "changed"})[0] != deep
    assert digests(**{"unetxl/deep/model.onnx.data": "changed"})[1] == shallow
