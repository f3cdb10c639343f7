import psutil
import pytest

from sdxl_engine.engines.tensorrt.gpu import free_memory
from sdxl_engine.engines.tensorrt.workspace import GIB, workspace_bytes
from sdxl_engine.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "free_gib", "weights_gib", "gives_gib"),
    [(None, 141, 5, 80), (None, 24, 5, 19), (8, 24, 5, 8), (19, 24, 5, 19), (100, 141, 5, 100)],
)
def test_the_workspace_fits_beside_the_weights(asked, free_gib, weights_gib, gives_gib):
    assert workspace_bytes(asked, free_gib * GIB, weights_gib * GIB, 0) == gives_gib * GIB


@pytest.mark.parametrize(("asked", "free_gib"), [(20, 24), (None, 4), (0, 24), (-1, 24)])
def test_a_workspace_that_does_not_fit_is_refused_with_what_is_free(asked, free_gib):
    with pytest.raises(UsageError, match="does not fit in free memory") as caught:
        workspace_bytes(asked, free_gib * GIB, 5 * GIB, 1)
    assert f"{free_gib}.00 GiB free on GPU 1" in caught.value.parts["got"]


def test_without_a_gpu_the_machines_free_memory_counts():
    total = psutil.virtual_memory().total
    assert 0 < free_memory(None) < total
