from types import SimpleNamespace

import pytest

from sdxl_engine.engines.tensorrt.gpu import Gpu, device_number
from sdxl_engine.engines.tensorrt.library import Library
from sdxl_engine.engines.tensorrt.target import Target, target_of
from sdxl_engine.errors import UnavailableError, UsageError

RTX = Library("tensorrt_rtx", "1.7.1.116", SimpleNamespace(ComputeCapability=SimpleNamespace(SM120=1, SM80=2, SM89=3)))
TRT = Library("tensorrt", "10.13.0.35", SimpleNamespace())
H200 = Gpu("NVIDIA H200", "9.0", 8)
ADA = Gpu("NVIDIA RTX 6000 Ada Generation", "8.9", 1)
ANY = "any, ahead of time"


@pytest.mark.parametrize(
    ("library", "gpu", "asked", "target"),
    [
        (TRT, H200, (), Target("NVIDIA H200", ("9.0",), "H200x8")),
        (TRT, H200, ("9.0",), Target("NVIDIA H200", ("9.0",), "H200x8")),
        (TRT, ADA, (), Target("NVIDIA RTX 6000 Ada Generation", ("8.9",), "RTX-6000-Ada-Generationx1")),
        (RTX, None, (), Target(ANY, ("8.0", "8.9", "12.0"), "ahead-of-time-sm80-sm89-sm120")),
        (RTX, None, ("12.0", "8.0"), Target(ANY, ("8.0", "12.0"), "ahead-of-time-sm80-sm120")),
        (RTX, ADA, (), Target(ANY, ("8.9",), "ahead-of-time-sm89")),
        (RTX, H200, ("8.9",), Target(ANY, ("8.9",), "ahead-of-time-sm89")),
    ],
)
def test_what_a_plan_is_built_for(library, gpu, asked, target):
    assert target_of(library, gpu, asked) == target


@pytest.mark.parametrize(
    ("library", "gpu", "asked", "error", "says"),
    [
        (TRT, None, (), UnavailableError, "there is none"),
        (TRT, H200, ("8.9",), UsageError, "builds for the GPU that it runs on"),
        (RTX, None, ("9.0",), UsageError, "does not build for this GPU"),
        (RTX, H200, (), UsageError, "does not build for this GPU"),
    ],
)
def test_what_cannot_be_built_here(library, gpu, asked, error, says):
    with pytest.raises(error, match=says):
        target_of(library, gpu, asked)


def test_device_numbers():
    assert [device_number(device) for device in ("auto", "cuda", "cuda:3")] == [0, 0, 3]
