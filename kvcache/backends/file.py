"""Values as files of a local directory: `file:///abs/dir`, and `?locking=flock` for conditional writes on one host.

The file of a key holds the value and nothing else, so a version is not in it. It is what the file system says of the
file: inode, size, time of change and time of status change, made unambiguous by two rules (spec/decisions/0002):

- Our own files get a time of change that lies a little in the past and that nothing else can give them, before they
  are renamed into place. So each write of ours has a version of its own, which is in place in the same instant as it.
- A file that somebody else changed within the last moment is read only when that moment is over, since a further
  change in it could look the same.

Only a rename ever changes a value, so readers need no lock and see an old value or a new one.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote

from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, NotFound, StoreUnavailable, Unsupported
from kvcache.kvs import (
    ABSENT,
    ANYWAY,
    Capabilities,
    Condition,
    Progress,
    Source,
    Stat,
    Store,
    Stored,
    Version,
    check_key,
)
from kvcache.localdir import LocalDirectory, age_file, unsettled
from kvcache.newfile import flush_directory, flush_to_disk, replacing, write_all
from kvcache.url import StoreURL

T = TypeVar("T")

_BUFFER: Final = 1024 * 1024
_LOOKS: Final = 100
"""How often a value is looked at that another program keeps rewriting in place, before that is an error."""


def open(url: StoreURL) -> FileStore:
    """The store of `file:///abs/dir?locking=flock`. InvalidURL."""
    form = "file:///abs/dir"
    url.reject_unknown({"locking"})
    locking = url.take_choice("locking", ("none", "flock"), "none") == "flock"
    if url.host not in ("", "localhost") or url.port or url.user or url.password:
        raise url.invalid("host", url.host, f"none: {form}")
    root = Path(url.require("path", url.path, form))
    if root.exists() and not root.is_dir():
        raise url.invalid("path", url.path, f"a directory: {form}")
    store = FileStore(root, locking=locking)
    if locking:
        try:
            store.probe()
        except Unsupported as error:
            raise InvalidURL(str(error)) from error
    return store


class FileStore(Store):
    """A directory. With `locking`, all processes of one host may write to it conditionally.

    What is promised to those who use this class holds also beside programs that do not: they may read at any time,
    and rename files into place or remove them; what they change gets a new version. A program that writes *in place*
    while we read, as Dewy v2 does, can show us a part of what it is writing; and one that writes without the lock in
    the instant between a check and the rename that follows it, some microseconds, is overwritten.
    """

    def __init__(
        self,
        root: Path,
        *,
        locking: bool = False,
        lock_timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`lock_timeout` in seconds; `clock` tells the store time, in seconds since the Unix epoch."""
        self.url = f"file://{quote(str(root))}" + ("?locking=flock" if locking else "")
        self._directory = LocalDirectory(root, lock_timeout=lock_timeout)
        self._locking = locking
        self._clock = clock

    @property
    def capabilities(self) -> Capabilities:
        if self._locking:
            return Capabilities(conditional_write=True, scope="host", store_time=True)
        # A path may lie on a network file system, whose locks, clock and inode numbers are not to be relied on.
        return Capabilities(unique_versions=False)

    # -- reading ----------------------------------------------------------------------------------------------------

    def read_versioned(self, key: str) -> Stored:
        with self._directory.mapped(key):
            data, status = self._observe(key, _read_all)
        return Stored(data, version_of(status), self._now())

    def stat(self, key: str) -> Stat:
        _, status = self._observe(key, lambda fd: None)
        return Stat(status.st_size, version_of(status), status.st_mtime)

    def list(self, prefix: str = "") -> Iterator[str]:
        with self._directory.mapped():
            keys = self._directory.keys(prefix)
        return iter(keys)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        if _same_file(path, self._directory.path(key)):
            return self.stat(key)  # the local copy of this store is this store

        def copy(fd: int) -> None:
            target.seek(0)
            target.truncate()
            done = 0
            while True:
                with self._directory.mapped(key):
                    chunk = os.read(fd, _BUFFER)
                if not chunk:
                    return
                target.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done)

        with replacing(path) as target:
            _, status = self._observe(key, copy)
        return Stat(status.st_size, version_of(status), status.st_mtime)

    def _observe(self, key: str, read: Callable[[int], T]) -> tuple[T, os.stat_result]:
        """What `read` makes of the open file of `key`, and a state of that file that held all the while. NotFound.

        `read` is called again where another program changed the file in place meanwhile.
        """
        for _ in range(_LOOKS):
            with self._directory.mapped(key):
                fd = self._directory.open_value(key)
            if fd is None:
                raise NotFound(key, store_time=self._now())
            try:
                before = os.fstat(fd)
                if before.st_nlink == 0:
                    continue  # replaced between our open and our look: there is a newer value
                if self._locking and (pause := unsettled(before)):
                    time.sleep(pause)
                    continue
                result = read(fd)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                return result, before
        raise StoreUnavailable(f"{self.url}: {key}: another program keeps writing to it")

    def _now(self) -> float | None:
        return self._clock() if self._locking else None

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        check_key(key)
        with self._directory.mapped(key):
            self._check(key, condition)  # a refusal needs no lock, and spares the disk a file that comes to nothing
            with self._new_file(key) as (fd, temporary):
                write_all(fd, data)
                return self._place(key, fd, temporary, condition)

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        path = self._directory.path(key)
        if not isinstance(source, str | os.PathLike):
            return self._upload(key, source, progress)
        if _same_file(source, path):
            return self.stat(key).version  # the local copy of this store is this store
        with Path(source).open("rb") as file:
            return self._upload(key, file, progress)

    def _upload(self, key: str, source: BinaryIO, progress: Progress | None) -> Version:
        # What the source raises is the caller's own and is passed on as it is; what the store raises is mapped.
        with self._new_file(key) as (fd, temporary):
            done = 0
            while chunk := source.read(_BUFFER):
                with self._directory.mapped(key):
                    write_all(fd, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done)
            with self._directory.mapped(key):
                return self._place(key, fd, temporary, ANYWAY)

    def delete(self, key: str) -> None:
        path = self._directory.path(key)
        with self._directory.mapped(key), self._lock(key):
            self._directory.remove(path)

    @contextmanager
    def _new_file(self, key: str) -> Iterator[tuple[int, Path]]:
        with ExitStack() as stack:
            with self._directory.mapped(key):
                file = stack.enter_context(self._directory.new_file())
            yield file

    def _place(self, key: str, fd: int, temporary: Path, condition: Condition) -> Version:
        """Makes a file the value of `key` if `condition` holds, and makes that last."""
        finished = self._finish(fd)
        with self._lock(key):
            # The lock protects the key from the other writers of this host between the check and the rename.
            self._check(key, condition)
            self._directory.put_in_place(temporary, key)
            placed = os.fstat(fd)  # the rename has set the time of status change, the last part of the version
        try:
            flush_directory(self._directory.path(key).parent)
        except OSError as error:
            raise AmbiguousWrite(f"{self.url}: {key}: written, but may not last: {error.strerror}") from error
        version = version_of(placed)
        if (placed.st_size, placed.st_mtime_ns) != (finished.st_size, finished.st_mtime_ns):
            # Somebody wrote into our file as soon as it was there: what we wrote had a version, which is gone.
            return Version(f"{version.token}-overwritten")
        return version

    def _finish(self, fd: int) -> os.stat_result:
        stamp = age_file(fd)
        flush_to_disk(fd)
        finished = os.fstat(fd)
        if self._locking and finished.st_mtime_ns != stamp:
            raise Unsupported(f"{self.url}: this file system keeps times too coarsely to tell two writes apart")
        return finished

    def probe(self) -> None:
        """Unsupported if this file system has no locks, or times too coarse, for conditional writes.

        One that cannot be written to at the moment passes: the first write will say so.
        """
        try:
            with self._directory.new_file() as (fd, _), self._directory.key_lock("probe"):
                self._finish(fd)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise Unsupported(f"{self.url}: this file system has no locks: {error.strerror}") from error

    def _check(self, key: str, condition: Condition) -> None:
        """Conflict unless the condition of a write holds in this instant."""
        if condition is ANYWAY:
            return
        try:
            status = self._directory.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        else:
            found = version_of(status) if stat.S_ISREG(status.st_mode) else None
        if found != (None if condition is ABSENT else condition):
            raise Conflict(key)

    def _lock(self, key: str) -> AbstractContextManager[None]:
        return self._directory.key_lock(key) if self._locking else nullcontext()


def _same_file(one: str | os.PathLike[str], other: Path) -> bool:
    try:
        return other.samefile(one)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, _BUFFER):
        chunks.append(chunk)
    return b"".join(chunks)


def version_of(status: os.stat_result) -> Version:
    """The version of a value, from the state of its file."""
    parts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return Version("-".join(f"{part:x}" for part in parts))
