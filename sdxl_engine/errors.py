"""The errors a user can meet, each saying what was got and expected, where it came from, what to do.

SdxlError
├── UsageError          an option or argument that cannot work        (exit status 4)
│   └── UnavailableError    needs a library or device that is not here (exit status 4)
├── AssetError          a file that is missing, corrupt or malformed   (exit status 1)
├── EngineError         a network that did not build or did not run    (exit status 1)
├── LoadgenError        a LoadGen test that crashed, hung or is INVALID (exit status 1)
└── AccuracyError       scores that cannot be computed or lie outside  (exit status 1)
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SdxlError(Exception):
    """Base of every error of this project that is meant to be read by its user.

    Args:
        what: One sentence: what went wrong.
        got: What was found.
        expected: What would have been right.
        source: Where the offending value came from (an option, a file and line, a log).
        fix: What to do about it, a command where there is one.
    """

    exit_status = 1

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        source: object = None,
        fix: object = None,
    ) -> None:
        self.what = what
        parts = (("got", got), ("expected", expected), ("from", source), ("fix", fix))
        self.parts = {name: str(value) for name, value in parts if value is not None}
        super().__init__(what)

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {name + ':':<10}{text}" for name, text in self.parts.items())])


class UsageError(SdxlError):
    """An option or argument that cannot work."""

    exit_status = 4


class UnavailableError(UsageError):
    """What was asked for needs a library or a device that is not here."""


class AssetError(SdxlError):
    """A file that is missing, corrupt or malformed."""


class EngineError(SdxlError):
    """A network that did not build, load or run."""


class LoadgenError(SdxlError):
    """A LoadGen test that crashed, hung, lost a response or is INVALID."""


class AccuracyError(SdxlError):
    """Scores that cannot be computed."""


def did_you_mean(got: str, choices: Iterable[str]) -> str | None:
    """The hint that names the choice nearest to `got`, whatever the case of its letters; None if none is near."""
    by_fold = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(got.casefold(), by_fold, n=1)
    return f"did you mean {by_fold[near[0]]!r}?" if near else None


def unknown_choice(what: str, got: str, choices: Iterable[str], *, source: str) -> UsageError:
    """The error for a value outside a fixed set, with the nearest allowed value as the fix."""
    allowed = list(choices)
    return UsageError(
        f"unknown {what} {got!r}",
        got=repr(got),
        expected="one of " + ", ".join(allowed),
        source=source,
        fix=did_you_mean(got, allowed),
    )
