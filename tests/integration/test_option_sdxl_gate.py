"""`--sdxl-gate`: what judges the scores, and why, in the report, the results and the failure."""

from __future__ import annotations

import pytest

USAGE = pytest.ExitCode.USAGE_ERROR

SHOW = """
def test_show(sdxl_settings, record_property):
    print("SHOW", sdxl_settings.gate)
"""


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_gate_reaches_the_settings(project, workers):
    project.pytester.makepyfile(test_show=SHOW)
    result = project.run("test_show.py", "-rP", "--sdxl-gate=published", *workers)
    result.stdout.fnmatch_lines(["SHOW published"])


def test_gate_from_the_environment_and_the_ini_file(project, monkeypatch):
    project.pytester.makepyfile(test_show=SHOW)
    project.pytester.makeini("[pytest]\nsdxl_gate = official\n")
    project.run("test_show.py", "-rP").stdout.fnmatch_lines(["SHOW official"])
    monkeypatch.setenv("SDXL_GATE", "published")
    project.run("test_show.py", "-rP").stdout.fnmatch_lines(["SHOW published"])


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_the_gate_and_its_reason_are_in_the_report_and_the_results(project, workers):
    result = project.run("-m", "accuracy", "--sdxl-json=r.json", *workers)
    result.stdout.fnmatch_lines(["accuracy: *", " gate: published (shapes with ranges of its own)"], consecutive=True)
    (record,) = project.json("r.json")["results"]
    assert record["verdict"]["gate"] == "published (shapes with ranges of its own)"
    assert record["asked"]["gate"] == "auto"


def test_the_gate_is_in_the_failure(project):
    project.behave(clip=80.0)
    project.run("-m", "accuracy").stdout.fnmatch_lines(
        ["*expected: both scores within the ranges shapes-512 *; gate: published (shapes with ranges of its own)"]
    )


@pytest.mark.parametrize("workers", [(), ("-n2",)])
@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (
            ["--sdxl-gate=offical"],
            ["ERROR: unknown gate 'offical'", "*from: *--sdxl-gate", "*did you mean 'official'?"],
        ),
        (["--sdxl-gate=custom"], ["ERROR: the gate custom takes its ranges from one place", "*got: *none"]),
        (
            ["--sdxl-gate=official", "--sdxl-clip-range=31,32"],
            ["ERROR: ranges of your own do not go with another gate", "*from: *--sdxl-gate, --sdxl-clip-range"],
        ),
    ],
)
def test_a_gate_that_cannot_be_is_a_usage_error(project, args, lines, workers):
    result = project.run(*args, *workers)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(lines)
    assert project.calls() == []
