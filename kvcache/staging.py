"""The local copy of a shared store, for artifacts: whole or absent, checked, and bounded in size.

A staged file lies under its name in a directory, with the layout of the file store, so that staging in the directory
of a `file://` store copies nothing. Its length and SHA-256 are measured when it is staged and written down:

    .kvcache/staged/<hash of the name>    name, length, digest, and the inode and time of the file they were taken of

Where the record still describes the file, other bytes mean that the disk has lost some. The record's own time of
change says when the file was last used. Files without a record are somebody else's and are never evicted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

from kvcache.errors import KVCacheError
from kvcache.localdir import LocalDirectory, age_file, slot_of
from kvcache.newfile import flush_directory, flush_to_disk, write_all
from kvcache.url import DEFAULT_MAX_SIZE

_BUFFER: Final = 1024 * 1024


class BadCopy(KVCacheError):
    """What was fetched is not what was announced: its length or its SHA-256 differs. Nothing was staged."""


@dataclass(frozen=True, slots=True)
class _Measured:
    size: int
    sha256: str

    @classmethod
    def of(cls, file: BinaryIO) -> _Measured:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary file will do
        return cls(file.tell(), digest)

    def fits(self, sha256: str | None, size: int | None) -> bool:
        return (sha256 is None or sha256.lower() == self.sha256) and (size is None or size == self.size)


@dataclass(frozen=True, slots=True)
class _Record:
    name: str
    sha256: str
    size: int
    inode: int
    mtime_ns: int

    def describes(self, status: os.stat_result) -> bool:
        """Whether this was measured of that very file, unchanged since as far as the file system tells."""
        return (self.inode, self.mtime_ns, self.size) == (status.st_ino, status.st_mtime_ns, status.st_size)


class Staging:
    """Staged files of one directory. Any number of threads, and of processes of one host, can share it.

    `max_size` bounds what is staged, in bytes: what was used least recently goes first. What is pinned, in use, or
    being staged is kept even beyond it, since an artifact that is larger than the bound has to be deployed too.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        max_size: int = DEFAULT_MAX_SIZE,
        *,
        pinned: Callable[[], Collection[str]] = tuple,
        lock_timeout: float = 30.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`pinned` names what this process must not lose, at the time of an eviction; others do not ask it, so what
        is to be kept from them too is held by `use`. `clock`, in nanoseconds, says when a file was used."""
        self._directory = LocalDirectory(Path(directory), lock_timeout=lock_timeout)
        self._records = self._directory.hidden / "staged"
        self._max_size = max_size
        self._pinned = pinned
        self._clock = clock

    # -- what users do ----------------------------------------------------------------------------------------------

    def get(self, name: str, *, sha256: str | None = None, size: int | None = None) -> Path | None:
        """The staged file, after its bytes have been read and found good; else None, and it has to be `put`.

        `sha256` (hexadecimal) and `size` in bytes are what the file must have, where that is known. A file that is
        damaged or short is thrown away. One for which nothing vouches, neither these nor a record, is not used. Hold
        `use(name)` around this and the use of the path, or another process may evict the file in between.
        """
        path = self._directory.path(name)
        with self._directory.mapped(name):
            fd = self._directory.open_value(name)
            if fd is None:
                return None
            with os.fdopen(fd, "rb") as file:
                status = os.fstat(fd)
                record = self._read_record(name)
                if record is not None and not record.describes(status):
                    record = None  # of an earlier file of this name
                if record is None and sha256 is None and size is None:
                    return None
                measured = _Measured.of(file)
            damaged = record is not None and measured.sha256 != record.sha256
            good = not damaged and measured.fits(sha256, size)
            if good and record is not None:
                self._touch(name)
            elif good:
                self._if_unchanged(name, status, lambda: self._write_record(name, measured, status))
            elif damaged or record is None:  # else it is whole, but not what is asked for now: it stays until replaced
                self._if_unchanged(name, status, lambda: self._remove(name))
            return path if good else None

    def put(
        self,
        name: str,
        source: Callable[[Path], object] | BinaryIO,
        *,
        sha256: str | None = None,
        size: int | None = None,
    ) -> Path:
        """Stages a file and returns its path: it is there whole and checked, or the old one stays.

        `source` is called with the path of a file to write, or is a binary file to read from. What it raises is
        passed on. BadCopy: the length or the digest differs from `size` or `sha256`. StoreUnavailable: the local disk.
        """
        path = self._directory.path(name)
        with ExitStack() as stack:
            with self._directory.mapped(name):
                fetched = stack.enter_context(self._directory.new_directory()) / "fetched"
            if callable(source):
                source(fetched)
            else:
                self._copy(name, source, fetched)
            with self._directory.mapped(name):
                self._stage(name, fetched, sha256, size)
        return path

    @contextmanager
    def use(self, name: str) -> Iterator[Path]:
        """Keeps every process from evicting `name`, staged already or still to be, until the block ends.

        Names share locks, so now and then another file is kept as well.
        """
        path = self._directory.path(name)
        with ExitStack() as stack:
            with self._directory.mapped(name):
                stack.enter_context(self._directory.lock(_use_lock(name), shared=True))
                self._touch(name)
            yield path

    def sha256_of(self, name: str) -> str | None:
        """The digest (hexadecimal) measured when the file that is there now was staged; None if there is none."""
        path = self._directory.path(name)
        with self._directory.mapped(name), suppress(FileNotFoundError, NotADirectoryError):
            record = self._read_record(name)
            if record is not None and record.describes(path.stat()):
                return record.sha256
        return None

    def remove(self, name: str) -> None:
        """Throws a staged file away, used or not. One that is not there is not an error."""
        self._directory.path(name)  # InvalidKey before anything is locked
        with self._directory.mapped(name), self._lock():
            self._remove(name)

    def names(self) -> list[str]:
        """What is staged, most recently used first."""
        with self._directory.mapped():
            return [name for name, size in reversed(self._least_recently_used()) if size is not None]

    def size(self) -> int:
        """Bytes of all that is staged."""
        with self._directory.mapped():
            return sum(size or 0 for _, size in self._least_recently_used())

    # -- files ------------------------------------------------------------------------------------------------------

    def _copy(self, name: str, source: BinaryIO, target: Path) -> None:
        with ExitStack() as stack:
            with self._directory.mapped(name):
                file = stack.enter_context(target.open("xb", buffering=0))
            while chunk := source.read(_BUFFER):
                with self._directory.mapped(name):
                    write_all(file.fileno(), chunk)

    def _stage(self, name: str, fetched: Path, sha256: str | None, size: int | None) -> None:
        with fetched.open("rb") as file:
            measured = _Measured.of(file)
            if not measured.fits(sha256, size):
                due = [part for part in (size is not None and f"{size} bytes", sha256 and f"SHA-256 {sha256}") if part]
                found = f"{measured.size} bytes, SHA-256 {measured.sha256}"
                raise BadCopy(f"{name}: fetched {found}, due were {', '.join(due)}")
            age_file(file.fileno())
            flush_to_disk(file.fileno())
            status = os.fstat(file.fileno())
        with self._lock():
            self._make_room(status.st_size, name)
            # First the record: a crash in between leaves a record of no file, which is found out. The other way round
            # it would leave a file that is nobody's, and so is never evicted.
            self._write_record(name, measured, status)
            with self._directory.key_lock(name):
                self._directory.put_in_place(fetched, name)
        flush_directory(self._directory.path(name).parent)

    def _make_room(self, size: int, name: str) -> None:
        """Evicts, least recently used first, until `size` bytes more would fit, as far as it may."""
        kept = set(self._pinned())
        others = [(other, taken) for other, taken in self._least_recently_used() if other != name]
        total = size + sum(taken or 0 for _, taken in others)
        for other, taken in others:
            if taken is None:
                self._record_path(other).unlink(missing_ok=True)
            elif total > self._max_size and other not in kept:
                with self._directory.lock_if_free(_use_lock(other)) as free:
                    if free:
                        self._remove(other)
                        total -= taken

    def _if_unchanged(self, name: str, status: os.stat_result, act: Callable[[], None]) -> None:
        """Acts on a file that was looked at without the lock, unless another process has replaced it meanwhile."""
        with self._lock(), suppress(FileNotFoundError):
            now = self._directory.path(name).stat()
            if (now.st_ino, now.st_mtime_ns, now.st_size) == (status.st_ino, status.st_mtime_ns, status.st_size):
                act()

    def _remove(self, name: str) -> None:
        # The file first, for the reason given in `_stage`.
        with self._directory.key_lock(name):
            self._directory.remove(self._directory.path(name))
        self._record_path(name).unlink(missing_ok=True)

    def _lock(self) -> AbstractContextManager[None]:
        """Protects the records, and their agreement with the files, from other threads and processes."""
        return self._directory.lock("staging")

    # -- records ----------------------------------------------------------------------------------------------------

    def _record_path(self, name: str) -> Path:
        return self._records / hashlib.sha256(name.encode()).hexdigest()[:32]

    def _read_record(self, name: str) -> _Record | None:
        try:
            return _parse_record(self._record_path(name).read_bytes())
        except FileNotFoundError:
            return None

    def _write_record(self, name: str, measured: _Measured, status: os.stat_result) -> None:
        record = _Record(name, measured.sha256, measured.size, status.st_ino, status.st_mtime_ns)
        self._directory.make_directory(self._records)
        with self._directory.new_file() as (fd, temporary):
            write_all(fd, json.dumps(asdict(record)).encode())
            flush_to_disk(fd)
            temporary.replace(self._record_path(name))
        self._touch(name)

    def _touch(self, name: str) -> None:
        """Says that `name` is being used now."""
        now = self._clock()
        with suppress(FileNotFoundError):
            os.utime(self._record_path(name), ns=(now, now))

    def _least_recently_used(self) -> list[tuple[str, int | None]]:
        """Names and sizes of what has a record, the one whose use is longest ago first; None where the file is gone."""
        found: list[tuple[int, str, int | None]] = []
        with suppress(FileNotFoundError), os.scandir(self._records) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # evicted by another process meanwhile
                    record = _parse_record(Path(entry.path).read_bytes())
                    if record is not None:
                        found.append((entry.stat().st_mtime_ns, record.name, self._size(record.name)))
        return [(name, size) for _, name, size in sorted(found, key=itemgetter(0))]

    def _size(self, name: str) -> int | None:
        try:
            return self._directory.path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def _parse_record(data: bytes) -> _Record | None:
    """The record, or None where a crash has left something else: what is not vouched for is fetched again."""
    try:
        return _Record(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _use_lock(name: str) -> str:
    return f"use-{slot_of(name):02x}"
