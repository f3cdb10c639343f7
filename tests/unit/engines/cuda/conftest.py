"""Where there is no GPU, the kernels run in Triton's interpreter, which must be asked for before Triton is imported."""

import os
import sys

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    # Other libraries import Triton on the way; what it decorated then is not what the interpreter can call.
    for name in list(sys.modules):
        if name.split(".")[0] == "triton" and not name.startswith("triton._C"):
            del sys.modules[name]

pytest.importorskip("triton")


@pytest.fixture(scope="session", autouse=True)
def fp8_rounding():
    """Torch's rounding to FP8 in Triton's interpreter, whose own loses what it carries into the exponent, and NaN."""
    if torch.cuda.is_available():
        yield
        return
    import numpy as np
    from triton import language as tl
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(value, source, target, rounding):
        if source != tl.float32 or target != tl.float8e4nv:
            return theirs(value, source, target, rounding)
        single = torch.from_numpy(np.array(value).view(np.float32))
        return single.to(torch.float8_e4m3fn).view(torch.uint8).numpy().reshape(value.shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_convert_float", convert)
        yield


@pytest.fixture(autouse=True)
def memory_for_others():
    """What torch keeps of a test's memory goes back to the GPU, on which tests of other processes run."""
    yield
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def generator(device):
    return torch.Generator(device).manual_seed(0)


@pytest.fixture
def randn(device, generator):
    """Normal values, float32, on the device under test."""
    return lambda *shape: torch.randn(shape, generator=generator, device=device)


@pytest.fixture
def poisoned(device):
    """An output full of NaN."""

    def make(shape, dtype=torch.float16):
        return torch.full(shape, float("nan"), device=device).to(dtype)

    return make
