"""The official metric networks at full size, with random weights: the published ones are not part of the project."""

import pytest


@pytest.fixture(scope="session")
def photographs():
    """What the photographs among the images of tests/support/pictures.py come from."""
    pytest.importorskip("skimage", reason="needs scikit-image")


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    from random_official import write_official

    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session")
def networks(official):
    from sdxl_engine.accuracy.official import load_official_metrics

    return load_official_metrics(official.folder, official.files)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One thread for each operation; the long test runs two operations side by side, which is faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
