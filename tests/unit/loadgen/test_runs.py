"""Runs that end well: the bytes logged, the figures, the settings in effect."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.logs import DETAIL_LOG
from sdxl_engine.loadgen.profile import PROFILES
from sdxl_engine.loadgen.runner import run_loadgen


def image(index):
    return bytes((k + 7 * index) % 256 for k in range(192))


def logged(log_dir, count=11):
    return {entry.qsl_idx: entry.data for entry in AccuracyLog(log_dir / ACCURACY_LOG, count).entries()}


def test_accuracy_run_logs_each_image_once_with_its_own_bytes(accuracy_run):
    spec, result, _ = accuracy_run
    assert logged(spec.log_dir) == {index: image(index) for index in range(11)}
    assert result.valid
    assert result.errors == ()
    assert result.samples == 11
    assert result.samples_per_second is None
    assert 0 < result.duration_s < 30
    assert 5e6 < result.peak_memory_bytes < 5e8
    assert "source closed" in (spec.log_dir / "child.log").read_text()


def test_accuracy_run_in_several_queries(make_spec):
    """Sets of 3 with batches of 2: each query ends in a ragged batch."""
    spec = make_spec(performance_sample_count=3, source={"batch_size": 2})
    result = run_loadgen(spec)
    assert result.samples == 11
    assert result.errors == ()
    assert logged(spec.log_dir) == {index: image(index) for index in range(11)}


def test_performance_run_is_valid_and_its_figure_is_the_logs(performance_run):
    spec, result, beats = performance_run
    detail = (spec.log_dir / DETAIL_LOG).read_text()
    assert result.valid
    assert result.errors == ()
    assert f'"key": "result_samples_per_second", "value": {result.samples_per_second:g},' in detail
    assert 10 < result.samples_per_second <= 400
    assert result.samples == 198
    assert result.samples / result.duration_s == pytest.approx(result.samples_per_second, rel=1e-4)
    assert (beats[-1].done, beats[-1].total) == (198, 198)


def test_invalid_performance_run_is_returned_as_invalid(make_spec):
    """Sized by its first two batches, which take a second: 1.1 x 1.25 x 8 samples a second for 5 seconds."""
    source = {"delay_s": 1.0, "delayed": 1}
    spec = make_spec(mode="PerformanceOnly", min_duration_ms=5_000, min_query_count=20, expected_qps=0.1, source=source)
    result = run_loadgen(spec)
    assert not result.valid
    assert 20 <= result.samples <= 56
    assert len(result.errors) == 1
    assert "INVALID (not met: result_min_duration_met)" in result.errors[0]


def test_a_source_that_is_faster_than_expected_gives_a_valid_run(make_spec):
    """As expected, 20 samples would be all: 0.05 s."""
    source = {"delay_s": 0.01}
    spec = make_spec(mode="PerformanceOnly", min_duration_ms=300, min_query_count=20, expected_qps=0.1, source=source)
    result = run_loadgen(spec)
    assert result.valid
    assert result.errors == ()
    assert result.settings_requested["target_qps"] == 0.1
    assert 100 < result.settings_effective["target_qps"] <= 500


def test_heartbeats_go_through_the_phases(accuracy_run, performance_run):
    for _, result, beats in (accuracy_run, performance_run):
        phases = list(dict.fromkeys(beat.phase for beat in beats))
        assert phases == ["loading", "warming up", "running", "finished"]
        assert [beat.done for beat in beats] == sorted(beat.done for beat in beats)
        assert (beats[-1].done, beats[-1].total) == (result.samples, result.samples)
        assert beats[-1].peak_memory_bytes == result.peak_memory_bytes


def test_seeds_in_effect_and_a_single_configuration(accuracy_run, performance_run):
    """Configuration type 1 would log `Multiple conf files` or leave the seeds 0."""
    for spec, result, _ in (accuracy_run, performance_run):
        for name, seed in PROFILES["v6.1"].seeds.items():
            assert seed > 0
            assert result.settings_effective[name] == seed
        detail = (spec.log_dir / DETAIL_LOG).read_text()
        assert "ultiple conf" not in detail
        assert '"is_error": true' not in detail


def test_stray_audit_config_is_ignored(make_spec, tmp_path, monkeypatch):
    """LoadGen's default would take this file from the current folder and make it a performance run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.config").write_text("*.*.mode = 2\n*.*.min_query_count = 77\n")
    spec = make_spec()
    result = run_loadgen(spec)
    assert result.errors == ()
    assert result.settings_effective["test_mode"] == "AccuracyOnly"
    assert result.settings_effective["samples_per_query"] == spec.min_query_count
    assert len(logged(spec.log_dir)) == 11


def test_modules_in_the_current_folder_are_not_imported(make_spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    assert run_loadgen(make_spec()).valid


def test_second_run_in_one_parent_and_one_folder_leaves_nothing_of_the_first(make_spec):
    first = make_spec(sample_count=11)
    run_loadgen(first)
    first.log_dir.joinpath("mlperf_log_of_another_version.txt").write_text("stale")
    first.log_dir.joinpath("notes.txt").write_text("the user's own")
    second = make_spec(sample_count=5)
    assert run_loadgen(second).samples == 5
    assert sorted(logged(second.log_dir, 5)) == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in second.log_dir.iterdir() if "trace" not in path.name) == [
        "child.log",
        "mlperf_log_accuracy.json",
        "mlperf_log_detail.txt",
        "mlperf_log_summary.txt",
        "notes.txt",
        "spec.json",
    ]
    assert json.loads((second.log_dir / "spec.json").read_text())["sample_count"] == 5


def test_child_by_hand_makes_the_log_folder_and_reports_on_stderr(make_spec, tmp_path):
    spec = make_spec()
    spec.write(tmp_path / "spec.json")
    command = [sys.executable, "-m", "sdxl_engine.loadgen.child", str(tmp_path / "spec.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["phase"] == "finished"
    assert len(logged(spec.log_dir)) == 11


def test_importing_the_runner_imports_nothing_heavy():
    code = "import sys, sdxl_engine.loadgen.runner; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sdxl_engine.loadgen.watch" in out
    assert not {"mlperf_loadgen", "numpy", "torch"} & set(out)
