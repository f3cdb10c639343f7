import dataclasses

import pytest

from sdxl_engine.engines.tensorrt.names import manifest_path
from sdxl_engine.engines.tensorrt.plan import Manifest, PlanKey
from sdxl_engine.files import sha256, write_json

KEY = PlanKey(
    network="unet",
    onnx_sha256="a" * 64,
    precision="fp16",
    library="tensorrt",
    version="10.13.0.35",
    gpu="NVIDIA H200",
    compute_capabilities=("9.0",),
    flags=("STRONGLY_TYPED",),
    rows=(2, 16, 16),
)


@pytest.fixture
def key():
    return KEY


@pytest.fixture
def write_plan(tmp_path):
    """Write a plan with its manifest: `write_plan(content, name=..., **changes of the key)`."""

    def write(content=b"plan", plan=None, key=KEY, tensors=None, **changes):
        plan = plan or tmp_path / "unet.plan"
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_bytes(content)
        manifest = Manifest(
            key=dataclasses.replace(key, **changes),
            sha256=sha256(plan),
            bytes=len(content),
            tensors=tensors or {},
            workspace_bytes=1 << 30,
            build_s=1.0,
        )
        write_json(manifest_path(plan), manifest.to_json())
        return plan

    return write
