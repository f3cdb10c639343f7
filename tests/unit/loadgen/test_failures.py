"""Runs that cannot end well: each one clear error, the parent survives, nothing is left running."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sdxl_engine.errors import AssetError, LoadgenError, SdxlError, UnavailableError, UsageError
from sdxl_engine.loadgen import runner
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.runner import run_loadgen


def gone(pid):
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def failure(spec, kind=LoadgenError):
    started = time.monotonic()
    with pytest.raises(SdxlError) as caught:
        run_loadgen(spec)
    assert type(caught.value) is kind
    assert time.monotonic() - started < 20
    return caught.value


def test_exception_in_the_source_is_reported_with_its_traceback(make_spec):
    error = failure(make_spec(source={"fault": "raise"}))
    assert "failed while running: ValueError: no image for caption 5" in str(error)
    assert "Traceback (most recent call last):" in error.parts["got"]
    assert "loadgen_fakes.py" in error.parts["got"]
    assert 'raise ValueError("no image for caption 5")' in error.parts["got"]
    assert error.parts["from"].endswith("child.log")
    # The parent is as able as before, where LoadGen's own process would abort.
    assert run_loadgen(make_spec()).valid


@pytest.mark.parametrize(
    ("fault", "got"),
    [
        ("one short", "uint8 (3, 8, 8, 3), C-contiguous"),
        ("float", "float32 (4, 8, 8, 3), C-contiguous"),
        ("channels first", "uint8 (4, 3, 8, 8), C-contiguous"),
        ("strided", "uint8 (4, 8, 8, 3), not C-contiguous"),
        ("list", "an object of type list"),
    ],
)
def test_wrong_batch_is_named(make_spec, fault, got):
    error = failure(make_spec(source={"fault": fault}, sample_count=8))
    assert "wrong batch" in error.what
    assert error.parts["got"] == got
    assert error.parts["expected"] in {"uint8 (4, H, W, 3), C-contiguous", "uint8 (4, 8, 8, 3), C-contiguous"}
    assert error.parts["from"] == "Tiny.generate"


def test_image_size_that_changes_is_named(make_spec):
    error = failure(make_spec(source={"fault": "other size", "batch_size": 1}))
    assert error.parts["got"] == "uint8 (1, 4, 4, 3), C-contiguous"
    assert error.parts["expected"] == "uint8 (1, 8, 8, 3), C-contiguous"


def test_sample_that_never_completes_is_killed_and_counted(make_spec, tmp_path):
    pids = tmp_path / "pids"
    error = failure(make_spec(source={"fault": "hang", "batch_size": 1, "pids": str(pids)}, stall_timeout_s=1.0))
    assert "made no progress for 1 s, and was killed" in error.what
    done = int(error.parts["got"].split()[0])
    assert error.parts["got"] == f"{done} of 11 samples answered, {11 - done} missing"
    assert 0 <= done < 11
    # The log's tail shows where it hung.
    assert "child.log, which ends:" in error.parts["from"]
    assert "in strike" in error.parts["from"]
    assert "stall_timeout_s" in error.parts["fix"]
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_lost_response_is_one_missing(make_spec):
    error = failure(make_spec(source={"fault": "response lost"}, stall_timeout_s=2.0))
    assert error.parts["got"] == "10 of 11 samples answered, 1 missing"


def test_response_given_twice_makes_the_run_wrong(make_spec):
    spec = make_spec(source={"fault": "response twice"})
    result = run_loadgen(spec)
    assert not result.valid
    assert any("Attempted to complete a sample twice" in error for error in result.errors)
    with pytest.raises(AssetError, match="answered twice"):
        list(AccuracyLog(spec.log_dir / ACCURACY_LOG, 11).entries())


def test_warm_up_that_never_ends_is_killed(make_spec):
    error = failure(make_spec(source={"fault": "hang in warm-up"}, start_timeout_s=5.0))
    assert "not ready after 5 s" in error.what
    assert error.parts["got"] == "still warming up"
    assert "start_timeout_s" in error.parts["fix"]


@pytest.mark.parametrize("name", ["SIGABRT", "SIGKILL"])
def test_child_killed_by_a_signal(make_spec, name):
    error = failure(make_spec(source={"fault": name}))
    assert f"ended while running: killed by {name}" in error.what
    assert "of 11 samples answered" in error.parts["got"]
    assert ("dmesg" in error.parts["fix"]) == (name == "SIGKILL")
    assert ("in strike" in error.parts["from"]) == (name == "SIGABRT")


def test_child_that_leaves_with_status_0_before_the_end(make_spec):
    error = failure(make_spec(source={"fault": "vanish"}))
    assert "ended while running: exit status 0" in error.what
    error = failure(make_spec(source={"fault": "exit"}))
    assert "SystemExit: 0" in error.what


@pytest.mark.parametrize(
    ("factory", "got"),
    [
        ("no_such_module:Tiny", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("loadgen_fakes:Huge", "AttributeError: module 'loadgen_fakes' has no attribute 'Huge'"),
    ],
)
def test_factory_that_cannot_be_imported(make_spec, factory, got):
    error = failure(make_spec(factory=factory), UsageError)
    assert error.parts["got"] == got
    assert factory in error.parts["from"]


def test_error_meant_for_the_user_crosses_as_it_is(make_spec):
    error = failure(make_spec(factory="loadgen_fakes:corrupt_bundle"), AssetError)
    assert error.what == "the bundle is corrupt"
    assert error.parts == {
        "got": "abc",
        "expected": "def",
        "from": "model.safetensors",
        "fix": "get it again",
    }
    assert "in corrupt_bundle" in error.__notes__[0]


def test_source_with_too_few_captions(make_spec):
    error = failure(make_spec(source={"count": 10}))
    assert error.parts["got"] == "batch_size 4, image_count 10"


def test_keyboard_interrupt_in_the_parent_kills_the_child(make_spec, tmp_path):
    pids = tmp_path / "pids"

    def interrupt(progress):
        if progress.phase == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loadgen(make_spec(source={"fault": "hang", "pids": str(pids)}), interrupt)
    assert len(pids.read_text().split()) == 2
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_child_ends_itself_when_its_parent_is_killed(make_spec, tmp_path):
    make_spec(source={"fault": "hang", "pids": str(tmp_path / "pids")}).write(tmp_path / "parent.json")
    code = """
import pathlib, sys
from sdxl_engine.loadgen import runner, spec
asked = spec.LoadgenSpec.read(pathlib.Path(sys.argv[1]))
runner.run_loadgen(asked, lambda beat: print(beat.phase, flush=True))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "parent.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert any(line == "running\n" for line in parent.stdout)
        parent.kill()
    child, helper = map(int, (tmp_path / "pids").read_text().split())
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(helper, signal.SIGKILL)
    assert gone(child)


def test_loadgen_that_is_not_installed(make_spec, monkeypatch):
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    error = failure(make_spec(), UnavailableError)
    assert error.parts["fix"] == "pip install 'pytest-sdxl[loadgen]'"


def test_two_tests_do_not_share_a_folder(make_spec):
    spec = make_spec()
    spec.log_dir.mkdir()
    (spec.log_dir / ACCURACY_LOG).write_text("of the test that is running")
    lock = os.open(spec.log_dir, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another LoadGen test" in failure(spec).what
    finally:
        os.close(lock)
    assert (spec.log_dir / ACCURACY_LOG).read_text() == "of the test that is running"


def test_log_folder_that_cannot_be_made(make_spec, tmp_path):
    (tmp_path / "logs").write_text("a file")
    assert "cannot be made" in failure(make_spec(), UsageError).what
