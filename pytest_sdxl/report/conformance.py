"""The end of a conformance session: for each check, the figure that came closest to its bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


class _Closest(NamedTuple):
    share: float
    text: str


def write_figures(reporter: pytest.TerminalReporter, figures: Iterable[tuple[str, str]]) -> None:
    """Write the table.

    Args:
        reporter: pytest's own.
        figures: Node ids, each with one figure and its bound, see `properties.CONFORMANCE`.
    """
    closest: dict[str, _Closest] = {}
    for nodeid, payload in figures:
        record = json.loads(payload)
        check = nodeid.rpartition("::")[2].partition("[")[0]
        share = record["value"] / record["bound"]
        text = f"{record['figure']} {record['value']:.2g} of {record['bound']:.2g}: {record['what']}"
        # Not `max`: a figure that is not a number is within no bound.
        if check not in closest or not share <= closest[check].share:
            closest[check] = _Closest(share, text)
    reporter.write_sep("=", "sdxl conformance, the figure closest to its bound")
    width = max(map(len, closest))
    for check, found in closest.items():
        reporter.write_line(f"{check:<{width}} {found.share:>7.1%} {found.text}", red=not found.share <= 1)
