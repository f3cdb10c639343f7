"""The sink of an accuracy run: on which device it scores, and which records it goes on with."""

import dataclasses

import pytest

from sdxl_engine.accuracy.records import RECORD, RecordWriter, read_record
from sdxl_engine.errors import UnavailableError, UsageError
from sdxl_engine.live_scoring import live_scoring
from sdxl_engine.settings import RunSettings

SETTINGS = RunSettings(model="shapes", engine="torch", samples=4, metrics_device="cpu")


def start(folder, **changes):
    return live_scoring(dataclasses.replace(SETTINGS, **changes).to_json(), str(folder), batch_size=4)


@pytest.fixture
def header(tmp_path):
    """Of a run that was killed before its first block."""
    start(tmp_path).finish()
    return read_record(tmp_path / RECORD).header


def test_the_device_that_was_asked_for_is_the_one(tmp_path):
    with pytest.raises(UnavailableError, match="device is not here") as caught:
        start(tmp_path, metrics_device="cuda:99")
    assert caught.value.parts["got"] == "cuda:99"


@pytest.mark.parametrize("batch_size", [12, 64])
def test_a_shard_scores_the_images_together_that_one_run_does(tmp_path, batch_size):
    """Blocks are whole batches, and shards are cut at multiples of 32."""
    changed = dataclasses.replace(SETTINGS, samples=64, shard="1/2").to_json()
    with pytest.raises(UsageError, match="score other images together") as caught:
        live_scoring(changed, str(tmp_path), batch_size=batch_size)
    assert caught.value.parts["got"] == f"batches of {batch_size} images, shard 1/2"
    assert not list(tmp_path.iterdir())
    live_scoring(changed, str(tmp_path), batch_size=16).finish()


@pytest.mark.parametrize(
    ("device", "tf32", "advice"),
    [
        ("cpu", "off", None),
        ("NVIDIA H200", "off", "score on NVIDIA H200 as before: --sdxl-metrics-device=cuda,"),
        ("cpu", "on", "leave out the option to resume"),
    ],
)
def test_a_record_that_was_scored_elsewhere_is_refused_with_the_option_to_set(header, tmp_path, device, tf32, advice):
    other = header | {"metric": header["metric"] | {"device": device, "tf32": tf32}}
    RecordWriter(tmp_path / RECORD, other).close()
    if advice is None:
        start(tmp_path, resume=str(tmp_path)).finish()
        return
    with pytest.raises(UsageError, match="another run") as caught:
        start(tmp_path, resume=str(tmp_path))
    assert ("device: NVIDIA H200, cpu" if device != "cpu" else "tf32: on, off") in caught.value.parts["got"]
    assert caught.value.parts["fix"].startswith(advice)


def test_a_record_of_the_cpu_is_refused_on_a_gpu(header):
    from sdxl_engine.accuracy.records import Record
    from sdxl_engine.run_header import check_same_run

    now = header | {"metric": header["metric"] | {"device": "NVIDIA H200"}}
    with pytest.raises(UsageError, match="another run") as caught:
        check_same_run(Record(header, (), 0), now, "record")
    assert caught.value.parts["got"] == "device: cpu, NVIDIA H200"
    assert caught.value.parts["fix"].startswith("score on cpu as before: --sdxl-metrics-device=cpu, ")
