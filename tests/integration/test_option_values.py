"""The options that only pass through: each reaches the run's settings; a bad value is status 4."""

from __future__ import annotations

import pytest

SHOW = """
import pytest

@pytest.fixture
def show(sdxl_settings, record_property):
    return sdxl_settings

def test_show(show):
    print("SHOW", repr((show.samples, show.scenario, show.pipeline, show.model)))
    print("SHOW", show.captions, show.build_dir.name)
    print("SHOW", show.metrics, show.metrics_dir, show.metrics_device)
    print("SHOW", show.shallow_steps, show.deep_steps)
    print("SHOW", show.shard, show.resume, show.responses, show.save_images)
"""


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_values_reach_the_settings(project, workers):
    project.pytester.makepyfile(test_show=SHOW)
    (project.path / "c.tsv").write_text("id\tcaption\n")
    result = project.run(
        "test_show.py",
        "-rP",
        "--sdxl-samples=64",
        "--sdxl-scenario=Offline",
        "--sdxl-pipeline=mine:build",
        "--sdxl-captions=c.tsv",
        "--sdxl-model=random",
        "--sdxl-metrics=torchmetrics",
        "--sdxl-metrics-dir=.",
        "--sdxl-metrics-device=cuda:1",
        "--sdxl-deep-steps=0-3,8",
        "--sdxl-shard=2/3",
        "--sdxl-resume=logs",
        "--sdxl-responses=digests",
        "--sdxl-save-images=all",
        *workers,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "SHOW (64, 'Offline', 'mine:build', 'random')",
            f"SHOW {project.path / 'c.tsv'} build",
            f"SHOW torchmetrics {project.path} cuda:1",
            "SHOW None 0-3,8",
            f"SHOW 2/3 {project.path / 'logs'} digests all",
        ]
    )


@pytest.mark.parametrize("workers", [(), ("-n2",)])
@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--sdxl-samples=0", "ERROR: a run needs at least one sample"),
        ("--sdxl-samples=ten", "ERROR: this is not a whole number"),
        ("--sdxl-scenario=Server", "ERROR: unknown scenario 'Server'"),
        ("--sdxl-test-mode=Both", "ERROR: unknown test mode 'Both'"),
        ("--sdxl-pipeline=mine", "ERROR: the pipeline under test is not an import path"),
        ("--sdxl-captions=none.tsv", "ERROR: the captions file is missing"),
        ("--sdxl-metrics=torchmetric", "ERROR: unknown metrics 'torchmetric'"),
        ("--sdxl-metrics-dir=none", "ERROR: the folder of the metric networks is missing"),
        ("--sdxl-metrics-device=gpu", "ERROR: unknown metrics device 'gpu'"),
        ("--sdxl-shard=3/2", "ERROR: a shard is not one of a number of shards"),
        ("--sdxl-responses=pixels", "ERROR: unknown responses 'pixels'"),
        ("--sdxl-save-images=perhaps", "ERROR: unknown save images 'perhaps'"),
        ("--sdxl-baseline=none", "ERROR: the baseline is missing"),
        ("--sdxl-json=.", "ERROR: the results cannot be written there"),
    ],
)
def test_a_bad_value_is_a_usage_error(project, option, line, workers):
    result = project.run(option, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line, f"  from:     {option.partition('=')[0]}"])
    assert project.calls() == []


def test_a_bad_ini_value_names_the_file(project):
    project.pytester.makeini("[pytest]\nsdxl_samples = ten\n")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *ten*"])


def test_random_weights_are_measured_for_speed_and_skipped_for_accuracy(project):
    result = project.run("--sdxl-model=random", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "sdxl gate: PASSED (0 accuracy, 1 performance; skipped: 1 accuracy)",
            "SKIPPED*model 'random' has random weights, so it has no accuracy to gate*",
        ]
    )
    assert project.calls() == ["measure DeepCache PerformanceOnly"]
