"""Runs the conformance suite on one engine after another, in one process, and writes down what failed.

python -m tests.support.conformance_runs FILE ENGINE...

What the engines are compared with is computed for the first of them alone.
"""

import gc
import json
import sys
import time
from pathlib import Path

import pytest

SUITE = "pytest_sdxl/conformance"
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:logging")


class Outcomes:
    """What each test of one session came to: failures with their text, which passed or were skipped, and figures."""

    def __init__(self):
        self.failed, self.passed, self.skipped, self.figures = {}, [], [], []

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            self.figures += [value for name, value in report.user_properties if name == "sdxl_conformance"]
        if report.failed:
            self.failed[report.nodeid] = report.longreprtext
        if report.passed and report.when == "call":
            self.passed.append(report.nodeid)
        if report.skipped:
            self.skipped.append(report.nodeid)


def main(target, engines):
    found = {}
    for engine in engines:
        began, outcomes = time.perf_counter(), Outcomes()
        arguments = [SUITE, f"--sdxl-engine={engine}", "--sdxl-device=cpu", "-q", "--tb=line", "-s", *WITHOUT]
        status = pytest.main(arguments, plugins=[outcomes])
        gc.freeze()  # what the libraries hold for good; the suite collects garbage, and would go through all of it
        found[engine.rpartition(":")[2]] = vars(outcomes) | {
            "status": int(status),
            "seconds": time.perf_counter() - began,
        }
    Path(target).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
