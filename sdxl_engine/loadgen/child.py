"""The process that runs one LoadGen test: `python -m sdxl_engine.loadgen.child SPEC.json [FD]`.

Heartbeats go to the file descriptor FD (stderr when started by hand). Ends with status 0 only after LoadGen
ran to its end; whether the run is VALID is for the parent to read in the logs.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sdxl_engine.errors import LoadgenError, UsageError
from sdxl_engine.loadgen.heartbeat import LOADING, RUNNING, WARMING_UP, Reporter
from sdxl_engine.loadgen.pace import measured_qps
from sdxl_engine.loadgen.profile import PROFILES
from sdxl_engine.loadgen.spec import LoadgenSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    import mlperf_loadgen

    from sdxl_engine.loadgen.source import ImageSource, Sink

MODEL = "stable-diffusion-xl"
"""The model's name in LoadGen's mlperf.conf."""

MLPERF_CONF = 0
"""The mlperf.conf embedded in the wheel, as a configuration type of `loadgen/test_settings_internal.cc`.

Type 1, the default, reads the embedded file only the first time in a process and leaves seeds of 0 the
second; it is for a user.conf, which this project does not have: what it would hold is set as attributes.
"""


def main(arguments: list[str]) -> int:
    """Run the test that the spec file describes; returns the exit status, or ends the process on an error."""
    faulthandler.enable()
    # The watchdog asks for all threads' stacks before it kills, so that child.log shows where a test hung.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    fd = sys.stderr.fileno()
    if len(arguments) > 1:
        fd = int(arguments[1])
        os.set_inheritable(fd, False)
    reporter = Reporter(fd)

    def die(error: BaseException) -> None:
        traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        reporter.fail(error)
        # Not an ordinary exit: LoadGen's threads still wait for the samples that will not come.
        os._exit(1)

    try:
        _run(LoadgenSpec.read(Path(arguments[0])), reporter, die)
    except BaseException as error:  # noqa: BLE001  reported to the parent, which raises it
        die(error)
    return 0


def _run(spec: LoadgenSpec, reporter: Reporter, die: Callable[[BaseException], None]) -> None:
    reporter.enter(LOADING)
    # Imported inside the try block: a wheel that does not load is reported like any other failure.
    import mlperf_loadgen

    from sdxl_engine.loadgen.sut import BatchingSut, keep_indices

    settings = loadgen_settings(spec)
    source = _load_source(spec)
    sink = _load_sink(spec, source.batch_size)
    reporter.enter(WARMING_UP)
    source.warm_up()

    accuracy = spec.mode == "AccuracyOnly"
    if accuracy:
        # Accuracy mode issues several queries, each of at most `performance_sample_count` samples.
        reporter.expect(spec.sample_count)
    else:
        settings.offline_expected_qps = max(spec.expected_qps, measured_qps(source, spec.sample_count))
    sut = BatchingSut(
        source,
        sink,
        on_query=(lambda _: None) if accuracy else reporter.expect,
        on_batch=reporter.advance,
        on_failure=die,
    )
    handle = mlperf_loadgen.ConstructSUT(sut.issue, sut.flush)
    library = mlperf_loadgen.ConstructQSL(spec.sample_count, spec.loaded_count, keep_indices, keep_indices)
    reporter.enter(RUNNING)
    sut.start()
    # The last argument is the audit configuration. Its default, audit.config, is read from the current folder
    # if one happens to lie there, and changes the test.
    mlperf_loadgen.StartTestWithLogSettings(handle, library, settings, log_settings(spec.log_dir), "")
    sut.stop()
    if sink is not None:
        sink.finish()
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(handle)
    source.close()
    reporter.finish()


def loadgen_settings(spec: LoadgenSpec) -> mlperf_loadgen.TestSettings:
    """LoadGen's settings for a spec: the embedded mlperf.conf, checked, then the spec's own values.

    Raises:
        LoadgenError: LoadGen refused its configuration, or it carries another version's seeds.
    """
    import mlperf_loadgen

    settings = mlperf_loadgen.TestSettings()
    status = settings.FromConfig("", MODEL, spec.scenario, MLPERF_CONF)
    if status != 0:
        raise LoadgenError(
            "LoadGen did not read its own configuration",
            got=f"status {status}",
            expected="status 0",
            source="TestSettings.FromConfig, the mlperf.conf embedded in mlperf_loadgen",
            fix=f"pip install '{PROFILES[spec.profile].wheel}'",
        )
    PROFILES[spec.profile].check_seeds(settings)
    settings.scenario = getattr(mlperf_loadgen.TestScenario, spec.scenario)
    settings.mode = getattr(mlperf_loadgen.TestMode, spec.mode)
    settings.min_duration_ms = spec.min_duration_ms
    settings.min_query_count = spec.min_query_count
    settings.offline_expected_qps = spec.expected_qps
    settings.performance_sample_count_override = spec.loaded_count
    return settings


def log_settings(log_dir: Path) -> mlperf_loadgen.LogSettings:
    """LoadGen's logs in `log_dir`, which is made.

    Without the folder LoadGen runs no test, returns as if it had, and aborts (SIGABRT) when the process ends.
    """
    import mlperf_loadgen

    log_dir.mkdir(parents=True, exist_ok=True)
    settings = mlperf_loadgen.LogSettings()
    output = mlperf_loadgen.LogOutputSettings()
    output.outdir = str(log_dir)
    settings.log_output = output
    settings.enable_trace = False
    return settings


def _imported(path: str, what: str, spec: LoadgenSpec) -> Callable[..., object]:
    """The callable at `module:callable`."""
    module, _, function = path.partition(":")
    try:
        return cast("Callable[..., object]", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the {what} cannot be imported",
            got=f"{type(error).__name__}: {error}",
            expected=f"a module {module} with a callable {function}",
            source=f"{path}, sys_path {list(spec.sys_path)}",
            fix="install the module, or name its folder in sys_path",
        ) from error


def _load_sink(spec: LoadgenSpec, batch_size: int) -> Sink | None:
    """Import and make the spec's sink, if it names one."""
    if spec.sink is None:
        return None
    return cast("Sink", _imported(spec.sink, "sink of the images", spec)(**spec.sink_options, batch_size=batch_size))


def _load_source(spec: LoadgenSpec) -> ImageSource:
    """Import and call the spec's factory, and check what it says of itself."""
    sys.path[:0] = spec.sys_path
    factory = _imported(spec.factory, "factory of the source under test", spec)
    source = cast("ImageSource", factory(**spec.factory_options))
    if source.batch_size < 1 or source.image_count < spec.sample_count:
        raise LoadgenError(
            "the source under test is too small for the test",
            got=f"batch_size {source.batch_size}, image_count {source.image_count}",
            expected=f"batch_size 1 or more, image_count {spec.sample_count} or more",
            source=f"factory {spec.factory}",
            fix="ask for fewer samples, or give the source more captions",
        )
    return source


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
