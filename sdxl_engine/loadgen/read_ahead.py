"""Lines of a file that does not fit into memory: a thread reads and hashes ahead of the caller."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20
"""Bytes asked of the system at a time. Smaller and larger blocks (256 KiB to 4 MiB) took as much processor time."""

LONGEST = 64 << 20
"""Bytes after which a line is given as it is, unfinished: ten times what an image of 1024 x 1024 makes in hex."""


class HashedLines:
    """The lines of a file, one at a time, and the SHA-256 of all of it.

    While the caller works on one line, a thread reads the next one and hashes it (both without holding Python's
    lock), so that the time is the longer of the two and not their sum. The lines lie in two buffers that take turns.
    They are reused because fresh megabytes for every line would cost as much time as reading it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._buffer, self._other = bytearray(2 * BLOCK), bytearray(2 * BLOCK)
        self._rest = b""

    def __iter__(self) -> Iterator[memoryview]:
        """Every line with its end, valid until the next one is asked for; once only.

        Raises:
            OSError: the file cannot be read.
        """
        with self._path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "read-ahead") as pool:
            ahead = pool.submit(self._read, file)
            while line := ahead.result():
                ahead = pool.submit(self._read, file)
                yield line

    def sha256(self) -> str:
        """Hex SHA-256 of what has been read so far; of the whole file after the last line."""
        return self._hash.hexdigest()

    def _read(self, file: io.FileIO) -> memoryview:
        """The next line; empty at the end of the file."""
        self._buffer, self._other = self._other, self._buffer
        size, searched = len(self._rest), 0
        self._buffer[:size] = self._rest
        while (end := self._buffer.find(b"\n", searched, size) + 1) == 0 and size < LONGEST:
            searched = size
            if size + BLOCK > len(self._buffer):
                self._buffer = self._buffer + bytes(len(self._buffer))  # a new one: views of the old may be in use
            view = memoryview(self._buffer)
            count = file.readinto(view[size : size + BLOCK])
            if not count:
                break
            self._hash.update(view[size : size + count])
            size += count
        end = end or size
        self._rest = bytes(memoryview(self._buffer)[end:size])
        return memoryview(self._buffer)[:end]
