"""Runs the conformance suite on one faulty engine after another, in one process, and writes down what failed.

python -m tests.support.conformance_runs FILE NAME...
"""

import gc
import json
import sys
import time
from pathlib import Path

import pytest

ENGINES = "tests.support.faulty_engines"
SUITE = "pytest_sdxl/conformance"
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:logging")


class Outcomes:
    """What each test of one session came to: failures with their text, and how many passed or were skipped."""

    def __init__(self):
        self.failed, self.passed, self.skipped = {}, 0, 0

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed[report.nodeid] = report.longreprtext
        self.passed += report.passed and report.when == "call"
        self.skipped += report.skipped


def main(target, names):
    found = {}
    for name in names:
        began, outcomes = time.perf_counter(), Outcomes()
        arguments = [SUITE, f"--sdxl-engine={ENGINES}:{name}", "-q", "--tb=line", "-s", *WITHOUT]
        status = pytest.main(arguments, plugins=[outcomes])
        gc.freeze()  # what the libraries hold for good; the suite collects garbage, and would go through all of it
        found[name] = vars(outcomes) | {"status": int(status), "seconds": time.perf_counter() - began}
    Path(target).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
