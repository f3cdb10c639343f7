"""LoadGen specs over the tiny sources of loadgen_fakes.py, and one good run of each mode to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdxl_engine.loadgen.runner import run_loadgen
from sdxl_engine.loadgen.spec import LoadgenSpec


def spec_for(log_dir, *, mode="AccuracyOnly", factory="loadgen_fakes:Tiny", source=None, **values):
    """A spec for 11 samples in batches of 4 (the last is ragged); `source` are the factory's options."""
    defaults = {"sample_count": 11, "start_timeout_s": 60.0, "stall_timeout_s": 30.0}
    folder = str(Path(__file__).parent)
    options = source or {}
    return LoadgenSpec(
        mode=mode,
        log_dir=log_dir,
        factory=factory,
        factory_options=options,
        sys_path=(folder,),
        **defaults | values,
    )


@pytest.fixture
def make_spec(tmp_path):
    return lambda **values: spec_for(tmp_path / "logs", **values)


@pytest.fixture(scope="session")
def accuracy_run(tmp_path_factory):
    """(spec, result, heartbeats) of an accuracy run into a folder, two levels deep, that was not there."""
    spec, beats = spec_for(tmp_path_factory.mktemp("accuracy") / "not" / "there"), []
    return spec, run_loadgen(spec, beats.append), beats


@pytest.fixture(scope="session")
def performance_run(tmp_path_factory):
    """(spec, result, heartbeats) of a performance run that must be VALID.

    A batch of 4 takes 10 ms or more: at most 400 samples/s, which the source is taken to exceed by a quarter at most.
    LoadGen issues 1.1 x 600 x 0.3 = 198 samples.
    """
    spec = spec_for(
        tmp_path_factory.mktemp("performance"),
        mode="PerformanceOnly",
        source={"delay_s": 0.01},
        performance_sample_count=8,
        min_duration_ms=300,
        min_query_count=20,
        expected_qps=600.0,
    )
    beats = []
    return spec, run_loadgen(spec, beats.append), beats
