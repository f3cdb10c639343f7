"""What tuning chose, kept in a file: {problem: choice}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sdxl_engine.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Tunable(Protocol):
    """A product of one problem that runs in one of several ways: `Matmul`, `GegluGemm`."""

    @property
    def problem(self) -> object:
        """What is computed; its text is the key."""

    @property
    def choice(self) -> dict[str, Any]:
        """The way in use, as JSON."""

    def use(self, choice: dict[str, Any]) -> bool:
        """Take an earlier `choice`; False if it was made for another problem, GPU or library."""


Product = TypeVar("Product", bound=Tunable)


def save_choices(path: Path, products: Iterable[Tunable]) -> None:
    """Write what `products` have chosen, whole or not at all."""
    write_json(path, {str(product.problem): product.choice for product in products})


def load_choices(path: Path, products: Iterable[Product]) -> list[Product]:
    """Give `products` the choices of a file; those that found none there that is valid here are returned, to be tuned.

    Raises:
        AssetError: the file is missing or is not JSON.
    """
    choices = read_json(path, "the file of tuning choices")
    return [product for product in products if not product.use(choices.get(str(product.problem), {}))]
