"""`--sdxl-ranges`: ranges from a file, of which the entry for the run's captions and metric is taken."""

from __future__ import annotations

import json

import pytest

ENTRY = {"name": "mine", "variant": "shapes", "count": 512, "clip": [90, 91], "fid": [1, 2], "origin": "measured"}


@pytest.fixture
def ranges(project):
    """A file with one entry, and another for more captions."""
    path = project.path / "ranges.json"
    path.write_text(json.dumps({"ranges": [ENTRY | {"count": 5000, "clip": [1, 2]}, ENTRY]}))
    return path


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_the_entry_for_the_run_judges_it(project, ranges, workers):
    result = project.run("-m", "accuracy", "--sdxl-ranges=ranges.json", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f" gate: custom (mine in {ranges}: measured)"])


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_score_outside_is_red(project, ranges, workers):
    ranges.write_text(json.dumps(ENTRY | {"fid": [0, 1.25]}))
    result = project.run("-m", "accuracy", "--sdxl-ranges=ranges.json", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*got: *FID_SCORE 1.5, valid range [[]0, 1.25]: 0.25 too high"])


def test_a_file_without_the_entry_is_status_4_and_says_what_is_there(project, ranges):
    ranges.write_text(json.dumps(ENTRY | {"count": 128}))
    result = project.run("-m", "accuracy", "--sdxl-ranges=ranges.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["*not one entry of ranges for this run", "*got: *mine (128 captions, shapes)", "*expected: *512 captions*"]
    )


def test_a_malformed_file_is_red_and_named(project, ranges):
    ranges.write_text(json.dumps(ENTRY | {"clip": [91, 90]}))
    result = project.run("-m", "accuracy", "--sdxl-ranges=ranges.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*accuracy ranges are malformed", f"*from: *{ranges}"])


@pytest.mark.parametrize("workers", [(), ("-n2",)])
@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--sdxl-ranges=none.json"], "ERROR: the file of ranges is missing"),
        (["--sdxl-ranges=ranges.json", "--sdxl-fid-range=,2"], "ERROR: the gate custom takes its ranges from one *"),
        (["--sdxl-ranges=ranges.json", "--sdxl-gate=published"], "ERROR: ranges of your own do not go with another *"),
    ],
)
def test_a_file_that_cannot_be_is_a_usage_error(project, ranges, args, line, workers):
    result = project.run(*args, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])
    assert project.calls() == []
