"""A file on its way: `NAME.part` beside its target, with a note of what it is to be; in its place once it is whole."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from sdxl_engine.assets.manifest import new_hash
from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json, write_json

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator
    from pathlib import Path

    from sdxl_engine.assets.manifest import Asset

_BLOCK = 1 << 20


class Part:
    """The unfinished download of a file.

    What lies there of an earlier download is gone on with if it was to become a file of the same digest; whether it is
    right, the digest of the whole decides.

    Args:
        target: Where the whole file goes.
        asset: With the size and the digest that it is held to.

    Raises:
        AssetError: the target's folder cannot be made.
    """

    def __init__(self, target: Path, asset: Asset) -> None:
        self.target = target
        self.asset = asset
        self.path = part_path(target)
        self._note = target.with_name(target.name + ".part.json")
        self._file: BinaryIO | None = None
        self._hash: hashlib._Hash | None = None
        with self._disk():
            target.parent.mkdir(parents=True, exist_ok=True)
        self.etag = self._etag_of_what_is_there()
        self.resumed = self.size > 0

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @contextlib.contextmanager
    def opened(self, etag: str = "", *, anew: bool) -> Iterator[None]:
        """Open the part to write on.

        Args:
            etag: The server's strong ETag of the file; empty where it has none.
            anew: Throw away what is there.
        """
        if anew:
            self.discard()
        with self._disk():
            write_json(self._note, {"digest": self._identity(), "etag": etag})
            # What is written is in the file at once: a download that is killed goes on with all of it.
            self._file = self.path.open("ab", buffering=0)
        self.etag = etag
        self._hash = self._hash_of_what_is_there()
        try:
            yield
        finally:
            self._file.close()

    def write(self, block: bytes) -> None:
        """Append bytes.

        Raises:
            AssetError: the disk is full or fails; what was written stays, to be gone on with.
        """
        assert self._file is not None
        rest = memoryview(block)
        with self._disk():
            while rest:
                rest = rest[self._file.write(rest) :]
        if self._hash is not None:
            self._hash.update(block)

    def finish(self) -> str:
        """Put the part in its place if its size and digest are the asset's; else throw it away.

        Returns:
            Empty if it is in its place; else its digest.
        """
        found = self._hash.hexdigest() if self._hash is not None else self.asset.found(self.path)
        if self.asset.size not in (None, self.size) or found != self.asset.digest:
            self.discard()
            return found
        with self._disk():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)
        return ""

    def refused(self, got: str, source: object) -> AssetError:
        """The error for a source that has another file."""
        size = "" if self.asset.size is None else f"{self.asset.size} bytes, "
        return AssetError(
            f"the source has another {self.target.name} than the one that is asked for; nothing of it is kept",
            got=got,
            expected=f"{size}{self.asset.algorithm} {self.asset.digest}",
            source=source,
        )

    def discard(self) -> None:
        """Throw away what is there."""
        with self._disk():
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.etag, self.resumed, self._hash = "", False, None

    def _etag_of_what_is_there(self) -> str:
        try:
            note = read_json(self._note, "the note of a download")
            if note["digest"] == self._identity():
                return str(note["etag"])
        except (AssetError, KeyError, TypeError):
            # No note, or one that was cut off: nobody knows what the part is of.
            pass
        self.discard()
        return ""

    def _hash_of_what_is_there(self) -> hashlib._Hash | None:
        # git's digest begins with the size, which is not known before the end.
        if self.asset.algorithm == "blob":
            return None
        found = new_hash(self.asset.algorithm, 0)
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        return found

    def _identity(self) -> str:
        return f"{self.asset.algorithm}:{self.asset.digest}"

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AssetError(
                f"cannot write {self.target.name}",
                got=error,
                source=self.target.parent,
                fix="make room or choose another --build-dir, and repeat the command: it goes on where it stopped",
            ) from None


def part_path(target: Path) -> Path:
    """Where the unfinished download of a target lies."""
    return target.with_name(target.name + ".part")
