"""pytest's entry point to the plugin: hooks that delegate.

Every pytest session of everyone who has the package installed loads this module, so it and what it imports
stay free of numpy, torch and the like, and start no process; what measures and reports is imported when used.
"""

from __future__ import annotations

import pytest

from pytest_sdxl import checks, hookspecs, options, selection, xdist
from pytest_sdxl.fixtures import sdxl_dataset, sdxl_engine, sdxl_pipeline, sdxl_run, sdxl_settings
from pytest_sdxl.recorder import RECORDER, Recorder
from sdxl_engine.errors import UsageError

__all__ = ["sdxl_dataset", "sdxl_engine", "sdxl_pipeline", "sdxl_run", "sdxl_settings"]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make our hooks known."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `pytest_sdxl.options`."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, resolve the options, and refuse those that cannot work."""
    selection.add_markers(config)
    try:
        config.stash[options.RESOLVED] = options.resolve(config)
        if not xdist.is_worker(config):
            checks.check_configuration(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if not xdist.is_worker(config):
        config.pluginmanager.register(Recorder(config), RECORDER)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what will be measured."""
    from pytest_sdxl.report.header import header

    return header(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a configuration once per `--model-opt`."""
    selection.parametrize(metafunc)


@pytest.hookimpl(trylast=True)  # after -m and -k: what was not selected is not checked
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select by test mode, and refuse what cannot be run as asked."""
    try:
        selection.select(config, items)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)  # before any fixture is set up
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that a worker's collection refused."""
    checks.fail_if_refused(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table and the gate line, in the process that reports."""
    recorder: Recorder | None = config.pluginmanager.get_plugin(RECORDER)
    if recorder is not None and recorder.has_news():
        from pytest_sdxl.report.summary import write_summary

        write_summary(terminalreporter, recorder, config.get_verbosity(), config.get_terminal_writer().fullwidth)
    if recorder is not None and recorder.figures and config.get_verbosity() > -1:
        from pytest_sdxl.report.conformance import write_figures

        write_figures(terminalreporter, recorder.figures)
