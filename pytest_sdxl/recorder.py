"""What the reporting process keeps of a session: results, outcomes of the gates, refusals; and what follows.

Registered where there is no controller above: in a plain session, or in pytest-xdist's controller. All of it
arrives on the test reports, which survive a worker that crashes later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_sdxl import properties
from pytest_sdxl.options import RESOLVED
from pytest_sdxl.selection import GATES, MODE_OF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdxl_engine.report import Result

RECORDER = "sdxl_recorder"
"""The name under which the recorder is registered with pytest."""

_PROPERTIES = {properties.RESULT, properties.GATE, properties.REFUSED}
_WORSE = {"passed": 0, "skipped": 1, "failed": 2}


@dataclass
class Test:
    """One test that measures: its gates, its worst outcome so far, its results."""

    __test__ = False

    gates: tuple[str, ...] = ()
    outcome: str = "passed"
    results: list[Result] = field(default_factory=list)
    refused: bool = False


class Verdict(NamedTuple):
    """How the gates of a session came out; `passed` is None where none of them judged anything."""

    passed: bool | None
    line: str


def _count(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


class Recorder:
    """Collects from the reports; writes the results; sets the exit status that no single test can set.

    Attributes:
        tests: What measured, by node id.
        problem: Why the results could not be written.
        figures: Of the conformance suite: node ids, each with one figure and its bound as JSON.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._crashed = 0
        self.tests: dict[str, Test] = {}
        self.problem: str | None = None
        self.figures: list[tuple[str, str]] = []

    def results(self) -> Iterator[tuple[str, Test, Result]]:
        """Every result with its test, in the order of arrival."""
        for nodeid, test in self.tests.items():
            for result in test.results:
                yield nodeid, test, result

    def has_news(self) -> bool:
        """Whether there is anything to report."""
        return self.problem is not None or any(test.gates or test.results for test in self.tests.values())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what the report of a phase carries."""
        if report.when not in ("setup", "call", "teardown"):
            # The report that xdist makes for the test during which a worker died; it carries nothing.
            self._crashed += 1
            return
        if report.when == "call":
            self.figures += [
                (report.nodeid, str(v)) for name, v in report.user_properties if name == properties.CONFORMANCE
            ]
        ours = [(name, value) for name, value in report.user_properties if name in _PROPERTIES]
        if not ours:
            return
        test = self.tests.setdefault(report.nodeid, Test())
        if _WORSE.get(report.outcome, 0) > _WORSE[test.outcome]:
            test.outcome = report.outcome
        payloads = []
        for name, value in ours:
            if name == properties.GATE:
                test.gates = tuple(str(value).split(","))
            elif name == properties.REFUSED:
                test.refused = True
            else:
                payloads.append(str(value))
        # The properties of a test grow from phase to phase, and each report carries all of them so far.
        for payload in payloads[len(test.results) :]:
            from sdxl_engine.report import Result

            result = Result.loads(payload)
            test.results.append(result)
            self._config.hook.pytest_sdxl_result(config=self._config, result=result)

    def verdict(self) -> Verdict | None:
        """How the gates came out; None where no test was one."""
        gates = [test for test in self.tests.values() if test.gates]
        if not gates:
            return None
        outcomes = {
            outcome: {name: sum(name in test.gates for test in gates if test.outcome == outcome) for name in GATES}
            for outcome in _WORSE
        }
        skipped = {name: number for name, number in outcomes["skipped"].items() if number}
        also = f"; skipped: {_count(skipped)}" if skipped else ""
        if any(outcomes["failed"].values()) or self._crashed:
            crashed = f", {self._crashed} crashed" if self._crashed else ""
            return Verdict(passed=False, line=f"FAILED ({_count(outcomes['failed'])}{crashed}{also})")
        if not any(outcomes["passed"].values()):
            return Verdict(passed=None, line=f"NOT JUDGED (all skipped: {_count(skipped)})")
        measured = {result.mode for _, _, result in self.results()}
        empty = [name for name, number in outcomes["passed"].items() if number and MODE_OF[name] not in measured]
        if empty:
            return Verdict(passed=False, line=f"FAILED (0 results for {', '.join(empty)}: the tests measured nothing)")
        return Verdict(passed=True, line=f"PASSED ({_count(outcomes['passed'])}{also})")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the results, then make the exit status tell of what no failed test tells."""
        verdict = self.verdict()
        target = self._config.stash[RESOLVED].json
        if target is not None and not self._config.getoption("collectonly"):
            from sdxl_engine.files import write_json
            from sdxl_engine.report import document

            results = [
                result.to_json() | {"test": nodeid, "outcome": test.outcome} for nodeid, test, result in self.results()
            ]
            try:
                write_json(target, document(verdict, results))
            except OSError as error:
                # Raising from this hook would be an internal error, so the summary says it.
                self.problem = f"sdxl: the results could not be written: {error} (from --sdxl-json={target})"
        if any(test.refused for test in self.tests.values()):
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif session.exitstatus == pytest.ExitCode.OK and (
            self.problem is not None or (verdict is not None and verdict.passed is False)
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
