import dataclasses
import json

import pytest

from sdxl_engine.engines.tensorrt.names import manifest_path
from sdxl_engine.engines.tensorrt.plan import check
from sdxl_engine.errors import AssetError

FIX = "sdxl-engine generate-engines --engine tensorrt"


def refused(plan, key):
    with pytest.raises(AssetError) as caught:
        check(plan, key, FIX)
    assert caught.value.parts["fix"] == FIX
    assert str(plan.parent) in caught.value.parts["from"]
    return caught.value


def test_a_plan_that_fits_is_taken(write_plan, key):
    assert check(write_plan(), key, FIX).key == key


@pytest.mark.parametrize(
    ("change", "says", "got"),
    [
        ({"network": "vae"}, "of another network", "vae"),
        ({"onnx_sha256": "b" * 64}, "stale: the model's ONNX file has changed", "b" * 64),
        ({"precision": "fp32"}, "of another precision", "fp32"),
        ({"library": "tensorrt_rtx"}, "foreign: another library built it", "tensorrt_rtx"),
        ({"version": "10.12.0.36"}, "foreign: another version of the library", "10.12.0.36"),
        ({"gpu": "NVIDIA H100"}, "foreign: it was built for another GPU", "NVIDIA H100"),
        ({"compute_capabilities": ("8.0", "8.9")}, "foreign: it was built for other compute cap", "8.0, 8.9"),
        ({"flags": ("STRONGLY_TYPED", "TF32")}, "built with other flags", "STRONGLY_TYPED, TF32"),
        ({"rows": (2, 8, 8)}, "too small a profile", "batches of 2 to 8 rows"),
        ({"rows": (4, 16, 16)}, "too small a profile", "batches of 4 to 16 rows"),
    ],
)
def test_a_stale_or_foreign_plan_is_refused_with_what_was_found(write_plan, key, change, says, got):
    error = refused(write_plan(**change), key)
    assert says in error.what
    assert error.parts["got"] == got


def test_a_plan_for_larger_batches_and_more_gpus_is_taken(write_plan, key):
    plan = write_plan(rows=(1, 64, 64), compute_capabilities=("8.9", "9.0", "12.0"))
    check(plan, key, FIX)


@pytest.mark.parametrize(("content", "says"), [(b"plaN", "its content has changed"), (b"pla", "its size is wrong")])
def test_a_damaged_plan_is_refused(write_plan, key, content, says):
    plan = write_plan()
    plan.write_bytes(content)
    assert says in refused(plan, key).what


def test_a_missing_plan_is_refused(tmp_path, key):
    assert refused(tmp_path / "none.plan", key).what == "a TensorRT plan is missing"


def _without_version(values):
    del values["key"]["version"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda values: values.update(schema=0), "of another schema"),
        (_without_version, "malformed"),
        (lambda values: values.update(extra=1), "malformed"),
    ],
)
def test_a_manifest_that_does_not_say_enough_is_refused(write_plan, key, change, says):
    plan = write_plan()
    values = json.loads(manifest_path(plan).read_text())
    change(values)
    manifest_path(plan).write_text(json.dumps(values))
    assert says in refused(plan, key).what


def test_a_plan_without_a_manifest_is_refused(write_plan, key):
    plan = write_plan()
    manifest_path(plan).unlink()
    assert "no manifest" in refused(plan, key).what


def test_a_key_survives_json(key):
    assert type(key).from_json(json.loads(json.dumps(dataclasses.asdict(key)))) == key
