"""How a run is shared out among machines: whole blocks of images that are scored together."""

from __future__ import annotations

from sdxl_engine.errors import UsageError

BLOCK = 32
"""Images that are scored together. A run's blocks begin at multiples of it in the order of its captions, so that a
run that was killed, or is done in shards, puts the same images together and gets the same bits."""


def parse_shard(text: str, *, source: str = "shard") -> tuple[int, int]:
    """`i/n` as (i, n), 1 <= i <= n.

    Raises:
        UsageError: it is not that.
    """
    first, _, last = text.partition("/")
    if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        number, count = 0, 0
    else:
        number, count = int(first), int(last)
    if not 1 <= number <= count:
        raise UsageError(
            "a shard is not one of a number of shards",
            got=repr(text),
            expected="i/n with 1 <= i <= n, for example 1/4",
            source=source,
        )
    return number, count


def shard_rows(count: int, shard: str) -> range:
    """The rows of `count` captions that a shard draws: whole blocks, as even as they go.

    Images are scored in blocks, so that shards of whole blocks score what one run scores, to the last bit.

    Raises:
        UsageError: the shard would be empty.
    """
    number, shards = parse_shard(shard)
    blocks = -(-count // BLOCK)
    if shards > blocks:
        raise UsageError(
            "there are more shards than work",
            got=f"{shards} shards of {count} captions",
            expected=f"at most {blocks}: captions are shared out {BLOCK} at a time",
            source="shard",
        )
    return range((number - 1) * blocks // shards * BLOCK, min(count, number * blocks // shards * BLOCK))
