"""The keys of a machine's configuration: how the value of each is read, and what is said of one that cannot be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import did_you_mean
from sdxl_engine.models.spec import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class WrongValueError(Exception):
    """A value that its key does not take.

    Args:
        got: What was found.
        expected: What would have been right.
        below: The key within the value that is meant, where the value is a table.
        fix: The nearest right value, where there is one.
    """

    def __init__(self, got: object, expected: str, *, below: str | None = None, fix: str | None = None) -> None:
        self.got, self.expected, self.below, self.fix = got, expected, below, fix
        super().__init__(expected)


@dataclass(frozen=True)
class Kind:
    """What a key takes.

    Args:
        expected: In words, for messages and for the documentation.
        read: From TOML's value to the key's; raises `WrongValueError`.
    """

    expected: str
    read: Callable[[object], Any]


@dataclass(frozen=True)
class Key:
    """What a field of a configuration's dataclass carries as metadata.

    Args:
        kind: What it takes.
        meaning: A phrase for the documentation.
        left_out: What holds where the key is left out; None where it may not be.
        per_run: Whether it stands in a scenario's tables alone, since it is no default for all of them.
    """

    kind: Kind
    meaning: str
    left_out: str | None
    per_run: bool


def key(
    kind: Kind, meaning: str, *, default: Any = dataclasses.MISSING, left_out: str | None = None, per_run: bool = False
) -> Any:
    """A dataclass field that is a key; with a `default` it may be left out."""
    if left_out is None and default is not dataclasses.MISSING:
        left_out = str(default).lower() if isinstance(default, bool) else str(default)
    return dataclasses.field(default=default, metadata={"key": Key(kind, meaning, left_out, per_run)})


def keys_of(table: type) -> dict[str, Key]:
    """The keys of a dataclass by name, in its order."""
    return {field.name: field.metadata["key"] for field in dataclasses.fields(table) if "key" in field.metadata}


def _kind(expected: str, accepts: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda value: value) -> Kind:
    def read(value: object) -> Any:
        if not accepts(value):
            raise WrongValueError(value, expected)
        return convert(value)

    return Kind(expected, read)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TEXT = _kind("a text that is not empty", _is_text)
FLAG = _kind("true or false", lambda value: isinstance(value, bool))
PATTERNS = _kind(
    "a list of one or more texts",
    lambda value: isinstance(value, list) and value != [] and all(map(_is_text, value)),
    tuple,
)


def whole(low: int, high: int) -> Kind:
    """A whole number of a range with both ends."""

    def accepts(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _kind(f"a whole number, {low} to {high}", accepts)


def number(high: float) -> Kind:
    """A number above 0, up to `high`."""
    return _kind(f"a number above 0, at most {high:g}", lambda value: _is_number(value) and 0 < value <= high, float)


def span(high: float) -> Kind:
    """Two rising numbers above 0, up to `high`."""

    def accepts(value: object) -> bool:
        return (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_number, value))
            and 0 < value[0] < value[1] <= high
        )

    return _kind(f"two rising numbers above 0, at most {high:g}", accepts, lambda value: tuple(map(float, value)))


def choice(choices: Callable[[], Iterable[str]], expected: str = "") -> Kind:
    """One of some names, which are asked for when a value is read; `expected` stands for them in the documentation."""

    def read(value: object) -> str:
        allowed = list(choices())
        if not isinstance(value, str) or value not in allowed:
            raise WrongValueError(value, "one of " + ", ".join(allowed), fix=did_you_mean(str(value), allowed))
        return value

    return Kind(expected or "one of " + ", ".join(choices()), read)


def batches(largest: int) -> Kind:
    """Images per batch: one number for all networks, or a table by network."""
    count = whole(1, largest)

    def read(value: object) -> dict[str, int]:
        if not isinstance(value, dict):
            return dict.fromkeys(NETWORKS, count.read(value))
        for network, images in value.items():
            if network not in NETWORKS:
                raise WrongValueError(
                    network, "one of " + ", ".join(NETWORKS), below=network, fix=did_you_mean(network, NETWORKS)
                )
            try:
                count.read(images)
            except WrongValueError as wrong:
                raise WrongValueError(images, wrong.expected, below=network) from None
        return dict(value)

    return Kind(f"{count.expected}, or a table of them by network ({', '.join(NETWORKS)})", read)
