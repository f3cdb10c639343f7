"""What the detail log says against what was asked for, on doctored copies of a real log."""

from __future__ import annotations

import dataclasses
import re

import pytest

from sdxl_engine.errors import LoadgenError
from sdxl_engine.loadgen.logs import DETAIL_LOG
from sdxl_engine.loadgen.outcome import read_result, requested_settings
from sdxl_engine.loadgen.profile import PROFILES


@pytest.fixture
def doctored(performance_run, tmp_path):
    """A function: the result read from a copy of the VALID run's log, values changed or a line removed."""

    def read(remove=None, **values):
        text = (performance_run[0].log_dir / DETAIL_LOG).read_text()
        for key, value in values.items():
            text, count = re.subn(rf'("key": "{key}", "value": )("[^"]*"|[^,]*)', rf"\g<1>{value}", text)
            assert count == 1
        if remove:
            lines = [line for line in text.splitlines(keepends=True) if f'"key": "{remove}"' not in line]
            assert len(lines) == text.count("\n") - 1
            text = "".join(lines)
        (tmp_path / DETAIL_LOG).write_text(text)
        return read_result(dataclasses.replace(performance_run[0], log_dir=tmp_path), 123)

    return read


def test_intact_log(doctored):
    result = doctored()
    assert result.valid
    assert result.errors == ()
    assert result.peak_memory_bytes == 123


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("qsl_rng_seed", "0", "setting qsl_rng_seed: asked for 2085463073848966840, in effect 0"),
        ("schedule_rng_seed", "7", "setting schedule_rng_seed: asked for 16159082839903944936, in effect 7"),
        ("min_duration_ms", "100", "setting min_duration_ms: asked for 300, in effect 100"),
        ("max_duration_ms", "500", "setting max_duration_ms: asked for 0, in effect 500"),
        ("performance_sample_count", "5", "setting performance_sample_count: asked for 8, in effect 5"),
        ("accuracy_sample_count", "10", "setting accuracy_sample_count: asked for 11, in effect 10"),
        ("target_qps", "599.9", "setting target_qps: asked for 600.0, in effect 599.9"),
        ("samples_per_query", "19", "setting samples_per_query: asked for 20, in effect 19"),
        (
            "test_mode",
            '"AccuracyOnly"',
            "setting test_mode: asked for 'PerformanceOnly', in effect 'AccuracyOnly'",
        ),
    ],
)
def test_setting_that_is_not_in_effect_is_an_error(doctored, name, value, line):
    assert doctored(**{f"effective_{name}": value}).errors == (line,)


def test_setting_that_is_not_logged_is_an_error(doctored):
    errors = doctored(remove="effective_min_duration_ms").errors
    assert errors == ("setting min_duration_ms: asked for 300, in effect 'not logged'",)


def test_invalid_run_says_what_was_not_met(doctored):
    result = doctored(result_validity='"INVALID"', result_min_queries_met="false")
    assert not result.valid
    assert result.errors == ("result_validity: INVALID (not met: result_min_queries_met)",)


@pytest.mark.parametrize("key", ["result_validity", "result_samples_per_second", "loaded_qsl_set"])
def test_log_that_stops_early_is_of_no_whole_run(doctored, key):
    with pytest.raises(LoadgenError, match="did not run to its end") as caught:
        doctored(remove=key)
    assert caught.value.parts["got"] == f"no line for {key}"


@pytest.mark.parametrize("seed", sorted(PROFILES["v6.1"].seeds))
def test_other_seeds_in_the_wheel_are_refused(seed):
    profile = PROFILES["v6.1"]
    profile.check_seeds(profile)
    other = dataclasses.replace(profile, **{seed: 0})
    with pytest.raises(LoadgenError, match=r"seeds are not those of MLPerf Inference v6\.1") as caught:
        profile.check_seeds(other)
    assert caught.value.parts["fix"] == "pip install 'mlcommons-loadgen>=6.0.16'"


def test_requested_settings_name_the_log_lines(performance_run):
    spec, result, _ = performance_run
    assert result.settings_requested == requested_settings(spec)
    assert set(result.settings_requested) <= set(result.settings_effective)
