"""Silence for libraries that print their stages and warn about their own internals, which helps no user."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """Without what is printed, Python's warnings, and the library's log below an error.

    Args:
        library: Name of its logger.
    """
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
