"""Shares of whole blocks, which together are the run."""

import pytest

from sdxl_engine.errors import UsageError
from sdxl_engine.shards import BLOCK, parse_shard, shard_rows


@pytest.mark.parametrize(("count", "shards"), [(5000, 1), (5000, 4), (5000, 7), (200, 7), (33, 2), (64, 2)])
def test_shards_are_whole_blocks_and_share_no_row(count, shards):
    ranges = [shard_rows(count, f"{number}/{shards}") for number in range(1, shards + 1)]
    assert [row for rows in ranges for row in rows] == list(range(count))
    assert all(rows.start % BLOCK == 0 for rows in ranges)
    sizes = [len(rows) for rows in ranges]
    assert max(sizes) - min(sizes) < 2 * BLOCK
    assert min(sizes) > 0


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "¹/4"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="not one of a number of shards"):
        parse_shard(text)


def test_more_shards_than_blocks_are_refused():
    with pytest.raises(UsageError, match="more shards than work"):
        shard_rows(64, "1/3")
