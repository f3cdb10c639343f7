"""Captions and latent are known by their values, whatever file they come in."""

import numpy as np
import pytest

from sdxl_engine.assets import benchmark_inputs
from sdxl_engine.assets.benchmark_inputs import latent_sha256, other_inputs
from sdxl_engine.assets.captions import captions_sha256, read_captions, write_captions
from sdxl_engine.shapes.bundle import BUNDLE, CAPTIONS, LATENT


@pytest.fixture
def values():
    return np.random.default_rng(1).normal(size=(1, 4, 128, 128)).astype("<f4")


@pytest.fixture
def own(tmp_path, monkeypatch, values):
    """Files that stand for the benchmark's."""
    write_captions(tmp_path / "captions.tsv", ["a cat", 'a "dog"'], 1024)
    np.save(tmp_path / "latents.npy", values)
    digest = captions_sha256(read_captions(tmp_path / "captions.tsv"))
    monkeypatch.setattr(benchmark_inputs, "CAPTIONS", digest)
    monkeypatch.setattr(benchmark_inputs, "LATENT", latent_sha256(tmp_path / "latents.npy"))
    return tmp_path / "captions.tsv", tmp_path / "latents.npy"


def test_the_embedded_models_inputs_are_not_the_benchmarks(tmp_path):
    none = tmp_path / "none"
    assert other_inputs(BUNDLE / CAPTIONS, none) == f"the captions in {BUNDLE / CAPTIONS} are not the benchmark's"
    assert other_inputs(none, BUNDLE / LATENT) == f"the initial latent in {BUNDLE / LATENT} is not the benchmark's"


def test_the_benchmarks_own_and_missing_files_are_not_found_different(own, tmp_path):
    assert other_inputs(*own) == ""
    assert other_inputs(tmp_path / "none.tsv", tmp_path / "none.npy") == ""


def test_captions_in_another_order_are_other_captions(own):
    write_captions(own[0], ['a "dog"', "a cat"], 1024)
    assert "the captions in" in other_inputs(*own)


@pytest.mark.parametrize(
    "save",
    [
        np.save,
        lambda file, values: np.save(file, np.asfortranarray(values)),
        lambda file, values: np.save(file, values.astype(">f4")),
        lambda file, values: np.lib.format.write_array(file, values, version=(2, 0)),
    ],
    ids=["plain", "Fortran order", "big-endian", "format 2.0"],
)
def test_the_same_values_hold_in_another_container(own, values, save):
    with own[1].open("wb") as file:
        save(file, values)
    assert other_inputs(*own) == ""


def last_bit(values):
    values.flat[-1] = np.nextafter(values.flat[-1], np.float32(9))
    return values


@pytest.mark.parametrize(
    "change",
    [
        last_bit,
        lambda values: values.astype("<f8"),
        lambda values: values.reshape(4, 1, 128, 128),
        lambda values: values[:, :, ::-1],
    ],
    ids=["last bit", "float64", "shape", "flipped"],
)
def test_other_values_are_another_latent(own, values, change):
    np.save(own[1], change(values))
    assert "the initial latent in" in other_inputs(*own)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_another_latent(own, content):
    own[1].write_bytes(content)
    assert "the initial latent in" in other_inputs(*own)
