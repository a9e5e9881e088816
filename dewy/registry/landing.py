"""The file that an artifact is fetched into: whole and checked under its name, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dewy.errors import DewyError
from dewy.registry.base import Announced, Fetched, Progress
from kvcache import UpstreamError


class WrongBytes(UpstreamError):
    """What came is not what was announced: its length or its SHA-256 differs. Nothing of it was kept."""


class BeyondLimit(WrongBytes):
    """It is larger than what may be fetched at all. Another try would end no better."""


def part_of(path: Path) -> Path:
    """Where a file is while it is not whole: hidden, beside its place."""
    return path.with_name(f".{path.name}.part")


def measure(path: Path) -> Fetched:
    """Length and digest of a file. OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Fetched(file.tell(), f"sha256:{digest}")


def check(announced: Announced, fetched: Fetched) -> Fetched:
    """`fetched` itself, if it is what was announced. WrongBytes."""
    name = announced.name
    if announced.size not in (None, fetched.size):
        raise WrongBytes(f"{name}: {fetched.size} bytes came, {announced.size} were announced")
    if announced.digest not in (None, fetched.digest):
        raise WrongBytes(f"{name}: its digest is {fetched.digest}, announced was {announced.digest}")
    return fetched


class Landing:
    """Takes bytes, counts and hashes them, and puts the file in place when it is whole.

    The bytes go to a hidden file beside `path`, which a later try for the same path overwrites. DewyError: the disk
    does not take them.
    """

    def __init__(
        self, path: str | os.PathLike[str], announced: Announced, *, limit: int, progress: Progress | None = None
    ) -> None:
        self._path = Path(path)
        self._part = part_of(self._path)
        self._announced = announced
        self._limit = limit
        self._progress = progress
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes taken so far."""

    def __enter__(self) -> Self:
        with self._disk():
            self._file = self._part.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:  # not finished
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._part.unlink()

    def write(self, piece: bytes) -> None:
        """Takes the next bytes. WrongBytes as soon as there are more than announced or allowed."""
        size = self.size + len(piece)
        expected = self._announced.size
        if expected is not None and size > expected:
            raise WrongBytes(f"{self._announced.name}: more than the {expected} bytes announced")
        if size > self._limit:
            raise BeyondLimit(f"{self._announced.name}: larger than the {self._limit} bytes allowed")
        with self._disk():
            self._open_file.write(piece)
        self._hash.update(piece)
        self.size = size
        if self._progress is not None:
            self._progress(size)

    def restart(self) -> None:
        """Forgets what came so far."""
        with self._disk():
            self._open_file.seek(0)
            self._open_file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def finish(self) -> Fetched:
        """Checks the bytes and puts the file in place. WrongBytes."""
        fetched = check(self._announced, Fetched(self.size, f"sha256:{self._hash.hexdigest()}"))
        with self._disk():
            self._open_file.flush()
            os.fsync(self._open_file.fileno())
            self._open_file.close()
            self._part.replace(self._path)
        self._file = None
        return fetched

    @property
    def _open_file(self) -> BinaryIO:
        assert self._file is not None, "used outside of its `with`"
        return self._file

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DewyError(f"cannot write {self._path}: {error.strerror or error}") from error
