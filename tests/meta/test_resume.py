"""A run that is killed at any moment goes on where its record ends, and nobody can tell from its scores."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sdxl_engine.accuracy.records import RECORD, read_record
from sdxl_engine.errors import LoadgenError, UsageError
from sdxl_engine.measure import measure
from sdxl_engine.settings import RunSettings

ROOT = Path(__file__).parents[2]
SAMPLES = 200
"""Six whole blocks and a ragged one."""


def settings(build_dir, **changes):
    pipeline = "tests.support.quick_pipelines:slow_renders"
    return RunSettings(
        model="shapes", model_opt="DeepCache", samples=SAMPLES, build_dir=build_dir, pipeline=pipeline, **changes
    )


def record_of(build_dir):
    return next(build_dir.rglob(RECORD), None)


def bits(scores):
    return scores.clip.hex(), scores.fid.hex()


@pytest.fixture(scope="module", autouse=True)
def in_root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # a pipeline under test is looked for where the command is given
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    build_dir = tmp_path_factory.mktemp("whole")
    return measure(settings(build_dir), "AccuracyOnly"), record_of(build_dir).read_bytes()


def kill_at_a_random_moment(build_dir, rng, blocks, *resume):
    """Start the run, and kill all of its processes a moment after it has scored so many blocks."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "sdxl_engine",
        "run",
        "--test-mode",
        "AccuracyOnly",
        "--model=shapes",
    ]
    command += ["--samples", str(SAMPLES), "--pipeline", settings(build_dir).pipeline, "--build-dir", str(build_dir)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.Popen(
        [*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path}
    )
    deadline = time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        record = record_of(build_dir)
        if record is not None and record.read_bytes().count(b"\n") > blocks:
            break
        time.sleep(0.02)
    assert run.poll() is None, "the run ended before it could be killed"
    time.sleep(rng.uniform(0, 0.4))
    processes = psutil.Process(run.pid).children(recursive=True)
    for process in [*processes, run]:
        process.send_signal(signal.SIGKILL)
    run.wait()
    psutil.wait_procs(processes, timeout=30)  # a kill takes effect a moment after it is sent


def test_a_run_killed_twice_ends_with_the_bits_of_one_that_was_not(whole, tmp_path):
    measured, record = whole
    seed = random.SystemRandom().randrange(2**32)
    print(f"random.Random({seed})")  # shown where the test fails
    rng = random.Random(seed)
    first = rng.randrange(1, 4)
    kill_at_a_random_moment(tmp_path, rng, first)
    left = len(read_record(record_of(tmp_path)).blocks)
    assert first <= left < 7
    if left < 5:
        kill_at_a_random_moment(tmp_path, rng, left + 1, "--resume", "last")
    resumed = measure(settings(tmp_path, resume="last"), "AccuracyOnly")
    assert bits(resumed.scores) == bits(measured.scores)
    assert record_of(tmp_path).read_bytes() == record
    assert resumed.loadgen.samples == SAMPLES


def test_a_finished_run_is_not_scored_again(whole):
    measured, record = whole
    folder = measured.loadgen.log_dir
    again = measure(settings(folder.parents[4], resume=str(folder)), "AccuracyOnly")
    assert bits(again.scores) == bits(measured.scores)
    assert (folder / RECORD).read_bytes() == record


def test_a_run_that_broke_off_says_how_to_go_on(tmp_path, monkeypatch):
    broken = dataclasses.replace(settings(tmp_path), pipeline="tests.support.quick_pipelines:broken_renders")
    with pytest.raises(LoadgenError, match="out of paper") as caught:
        measure(broken, "AccuracyOnly")
    log_dir = record_of(tmp_path).parent
    scored = len(read_record(log_dir / RECORD).clip)
    assert 32 <= scored <= 96
    assert caught.value.parts["resume"].startswith(f"{scored} images are scored: --sdxl-resume={log_dir}, ")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [({"samples": 128}, "captions: 200, 128"), ({"model_opt": "NoOpt"}, "model_opt: DeepCache, NoOpt")],
)
def test_the_record_of_another_run_is_refused(whole, changes, difference):
    folder = whole[0].loadgen.log_dir
    other = dataclasses.replace(settings(folder.parents[4], resume=str(folder)), **changes)
    with pytest.raises(UsageError, match="no run to go on with") as caught:
        measure(other, "AccuracyOnly")
    assert difference in caught.value.parts["got"]


def test_a_record_of_other_weights_is_refused(whole, tmp_path):
    from sdxl_engine.accuracy.records import RecordWriter

    record = read_record(whole[0].loadgen.log_dir / RECORD)
    header = record.header | {"metric": record.header["metric"] | {"clip_weights_sha256": "0" * 64}}
    RecordWriter(tmp_path / RECORD, header).close()
    with pytest.raises(UsageError, match="another run") as caught:
        measure(settings(tmp_path, resume=str(tmp_path)), "AccuracyOnly")
    assert "clip_weights_sha256: " + "0" * 64 in caught.value.parts["got"]


def test_a_log_of_other_images_than_the_scored_ones_is_refused(whole, monkeypatch):
    """The record and LoadGen's log are two witnesses of one run; one that was tampered with does not pass."""
    from sdxl_engine import scoring
    from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG
    from sdxl_engine.models.source import resolve_model
    from sdxl_engine.run_captions import own_share

    folder = whole[0].loadgen.log_dir
    log = folder.parent / "log.json"
    lines = (folder / ACCURACY_LOG).read_text().splitlines(keepends=True)
    digest = lines[3].split('"')[-2]
    lines[3] = lines[3].replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1"))
    log.write_text("".join(lines))
    run = settings(folder.parents[4])
    own = own_share(run, resolve_model("shapes", run.build_dir))
    record = read_record(folder / RECORD)
    scoring.check_log(folder / ACCURACY_LOG, record, own)
    with pytest.raises(LoadgenError, match="another image than the one that was scored"):
        scoring.check_log(log, record, own)
