"""The benchmark's captions file: a TSV of one prompt per image."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import AssetError, UsageError
from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("id", "image_id", "caption", "height", "width", "file_name", "coco_url")
"""Source: mlcommons/inference text_to_image, captions_source.tsv."""


_QUOTED = 'quote what holds a tab, a line break or begins with a quote: "...", with "" for each " in it'


@dataclass(frozen=True)
class Caption:
    """One row: the caption's id, its image's id, and the prompt."""

    id: int
    image_id: int
    text: str


def read_captions(path: Path) -> list[Caption]:
    """Read a captions file in its own order.

    Fields may be quoted (eight of the benchmark's captions hold quotes), so the file is read as CSV, never split.

    Raises:
        AssetError: the file is missing, lacks a column, or holds a row with a wrong field or another number of them,
            such as one with a tab that is not quoted; the message names the line.
    """
    reader = None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            header = reader.fieldnames or []
            absent = [column for column in COLUMNS if column not in header]
            if absent:
                raise AssetError(
                    f"the captions file lacks the column{'s' * (len(absent) > 1)} {', '.join(absent)}",
                    got=", ".join(header) or "an empty file",
                    expected=", ".join(COLUMNS) + ", separated by tabs",
                    source=path,
                    fix="take the benchmark's captions_source.tsv as it is, or add the missing columns",
                )
            captions = [_caption(row, f"{path}, line {reader.line_num}") for row in reader]
    except FileNotFoundError:
        raise AssetError("the captions file is missing", expected="a TSV", source=path) from None
    except (csv.Error, UnicodeDecodeError) as error:
        where = path if reader is None else f"{path}, line {reader.reader.line_num}"
        raise AssetError("the captions file is not a TSV", got=error, source=where, fix=_QUOTED) from None
    seen: set[int] = set()
    doubled = next((row.id for row in captions if row.id in seen or seen.add(row.id)), None)  # type: ignore[func-returns-value]
    if not captions or doubled is not None:
        got = "no rows" if not captions else f"id {doubled} twice"
        raise AssetError("a captions file needs rows with different ids", got=got, source=path)
    return captions


def captions_sha256(captions: list[Caption]) -> str:
    """Hex SHA-256 over ids and prompts in their order, whatever else the file holds and however it quotes."""
    return hashlib.sha256("".join(f"{row.id}\t{row.text}\n" for row in captions).encode()).hexdigest()


def _caption(row: dict[Any, Any], where: str) -> Caption:
    # What DictReader has too many of is under None, what it has too few of is None.
    extra, short = row.pop(None, None), None in row.values()
    if extra is not None or short:
        raise AssetError(
            f"a row has {'fewer' if short else 'more'} fields than the header",
            got=repr(row["caption"]) if short else f"{row['caption']!r} as the caption, and {extra} at the end",
            expected=f"{len(row)} fields, separated by tabs",
            source=where,
            fix=_QUOTED,
        )
    try:
        found = Caption(int(row["id"]), int(row["image_id"]), row["caption"])
    except ValueError as error:
        raise AssetError("a caption's id is not a whole number", got=error, source=where) from None
    if not found.text:
        raise AssetError("a caption is empty", got=repr(row["caption"]), source=where)
    return found


def first_captions(path: Path, count: int) -> list[Caption]:
    """The first `count` captions of a file.

    Raises:
        UsageError: the file holds fewer.
        AssetError: see `read_captions`.
    """
    captions = read_captions(path)
    if count > len(captions):
        raise UsageError(
            "there are not that many captions",
            got=f"{count} samples",
            expected=f"at most {len(captions)}",
            source=path,
        )
    return captions[:count]


def write_captions(path: Path, captions: list[str], side: int) -> None:
    """Write a captions file in the benchmark's columns, ids from 0, for square pictures of `side` pixels."""
    with written_whole(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, text in enumerate(captions):
            writer.writerow([row, row, text, side, side, f"{row:06d}.png", ""])
