"""From LoadGen's detail log to a result: figures, verdict, settings in effect against those asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import LoadgenError
from sdxl_engine.loadgen.logs import DETAIL_LOG, DetailLog, read_detail
from sdxl_engine.loadgen.profile import PROFILES
from sdxl_engine.results import LoadgenResult

if TYPE_CHECKING:
    from sdxl_engine.loadgen.spec import LoadgenSpec

AT_LEAST = frozenset({"samples_per_query", "target_qps"})
"""Settings that may be raised: a query also covers the least duration at the rate that the source is found to have."""


def requested_settings(spec: LoadgenSpec) -> dict[str, Any]:
    """What a spec asks of LoadGen, under the names of the detail log's `effective_*` lines."""
    return {
        "scenario": spec.scenario,
        "test_mode": spec.mode,
        "samples_per_query": spec.min_query_count,
        "target_qps": spec.expected_qps,
        "min_duration_ms": spec.min_duration_ms,
        "max_duration_ms": 0,
        "max_query_count": 0,
        "performance_sample_count": spec.loaded_count,
        "accuracy_sample_count": spec.sample_count,
        **PROFILES[spec.profile].seeds,
    }


def settings_differences(requested: dict[str, Any], effective: dict[str, Any]) -> tuple[str, ...]:
    """One line per setting that is not in effect as asked for; LoadGen itself is silent about them."""
    return tuple(
        f"setting {name}: asked for {wanted!r}, in effect {effective.get(name, 'not logged')!r}"
        for name, wanted in requested.items()
        if not _in_effect(name, wanted, effective.get(name))
    )


def read_result(spec: LoadgenSpec, peak_memory_bytes: int | None) -> LoadgenResult:
    """The result of a test whose process ended well, from the logs in `spec.log_dir`.

    Args:
        spec: What was asked for.
        peak_memory_bytes: As the child reported it.

    Raises:
        AssetError: the detail log is missing or corrupt.
        LoadgenError: the log is of a test that did not run to its end.
    """
    path = spec.log_dir / DETAIL_LOG
    log = read_detail(path)
    performance = spec.mode == "PerformanceOnly"
    needed = ["loaded_qsl_set", "generated_query_count", "generated_samples_per_query"]
    if performance:
        needed += ["result_validity", "result_samples_per_second", "result_max_latency_ns"]
    if absent := [key for key in needed if key not in log]:
        raise LoadgenError(
            "LoadGen's detail log is of a test that did not run to its end",
            got=f"no line for {', '.join(absent)}",
            expected=f"the log of a whole {spec.mode} test",
            source=path,
            fix="see whether the disk is full, and run again",
        )
    requested, effective = requested_settings(spec), log.effective
    logged = log.errors + _invalid_reason(log)
    return LoadgenResult(
        scenario=spec.scenario,
        mode=spec.mode,
        samples_per_second=float(log["result_samples_per_second"]) if performance else None,
        valid=log["result_validity"] == "VALID" if performance else not log.errors,
        samples=_issued(log),
        # Offline is one query, scheduled at time 0: its last latency is what the rate is taken over.
        duration_s=log["result_max_latency_ns"] / 1e9 if performance else log.seconds_since("loaded_qsl_set"),
        errors=logged + settings_differences(requested, effective),
        log_dir=spec.log_dir,
        settings_requested=requested,
        settings_effective=effective,
        peak_memory_bytes=peak_memory_bytes,
    )


def _issued(log: DetailLog) -> int:
    """Samples over all queries: accuracy mode logs one query per loaded set."""
    counts = zip(log.every("generated_query_count"), log.every("generated_samples_per_query"), strict=True)
    return sum(queries * samples for queries, samples in counts)


def _invalid_reason(log: DetailLog) -> tuple[str, ...]:
    """Why LoadGen calls the run INVALID, which it does not log as an error."""
    if log.get("result_validity", "VALID") == "VALID":
        return ()
    unmet = [key for key in ("result_min_duration_met", "result_min_queries_met") if not log.get(key, True)]
    advice = str(log.get("result_invalid_reason", "")).strip()
    reason = f"result_validity: {log['result_validity']} (not met: {', '.join(unmet) or 'not said'}) {advice}"
    return (reason.rstrip(),)


def _in_effect(name: str, wanted: Any, got: Any) -> bool:
    if name in AT_LEAST and isinstance(got, int | float) and got > wanted:
        return True
    if isinstance(wanted, float):
        # LoadGen logs six significant digits.
        return isinstance(got, int | float) and math.isclose(wanted, got, rel_tol=1e-5)
    return bool(got == wanted)
