"""The user properties through which a test tells the reporting process what came of it."""

from __future__ import annotations

RESULT = "sdxl"
"""One result, as JSON; a test that measures several configurations has several."""

GATE = "sdxl_gate"
"""Which gates the test stands for: `accuracy`, `performance`, or both with a comma."""

REFUSED = "sdxl_refused"
"""The text of a usage error that came up too late to stop the session before its first test."""

CONFORMANCE = "sdxl_conformance"
"""One figure of a conformance check with its bound, as JSON: what, figure, value, bound."""
