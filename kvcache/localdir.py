"""How keys lie in a local directory: the layout that the file store and the staging area share.

The file of a key is `root/key`, byte for byte its value, so that a person can read it and Dewy v2 finds it. All that
is ours lies in the hidden directory `root/.kvcache`, which is no key:

    .kvcache/tmp/       files on their way; each locked by its writer, swept when the writer is dead
    .kvcache/locks/     lock files: a fixed number, never deleted (a deleted lock file lets a second owner in)

A segment of a key that cannot be a file name, or that is a name of ours, is escaped:

    .kvcache, .kvcache%x      .kvcache%=.kvcache, .kvcache%=.kvcache%x
    longer than 255 bytes     .kvcache%+first/.kvcache%+second/.kvcache%=last
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from kvcache.errors import InvalidKey, StoreUnavailable
from kvcache.kvs import check_key
from kvcache.newfile import flush_directory, sweep, temporary_directory, temporary_file

HIDDEN: Final = ".kvcache"
LOCK_SLOTS: Final = 64
"""Keys share this many locks, so that the number of lock files is bounded."""

_PART: Final = f"{HIDDEN}%+"
_LAST: Final = f"{HIDDEN}%="
_MAX_NAME_BYTES: Final = 255
_CHUNK_BYTES: Final = 200
_LONGEST_NAP: Final = 0.01
"""Seconds between two looks at a lock that somebody holds."""
_SETTLE: Final = 50_000_000
"""Nanoseconds after which a file that has not changed will show any later change in its times.

The kernel's clock for them ticks every 1 to 10 ms; two changes within one tick look alike.
"""


def encode_key(key: str) -> str:
    """The path of a key relative to the root. InvalidKey."""
    return "/".join(_encode_segment(segment) for segment in check_key(key).split("/"))


def decode_path(path: str) -> str | None:
    """The key of a file by its path relative to the root; None if no key has this path."""
    key = ""
    for name in path.split("/"):
        if name.startswith(_PART):
            key += name.removeprefix(_PART)
        else:
            key += name.removeprefix(_LAST) + "/"
    key = key.removesuffix("/")
    try:
        return key if encode_key(key) == path else None
    except InvalidKey:
        return None


def _encode_segment(segment: str) -> str:
    # In lower case, since file systems that ignore case would take `.KVCACHE` for ours.
    reserved = segment.lower() == HIDDEN or segment.lower().startswith(f"{HIDDEN}%")
    if not reserved and len(segment.encode()) <= _MAX_NAME_BYTES:
        return segment
    *parts, last = _chunks(segment)
    return "/".join([_PART + part for part in parts] + [_LAST + last])


def _chunks(segment: str) -> Iterator[str]:
    start = size = 0
    for index, character in enumerate(segment):
        size += len(character.encode())
        if size > _CHUNK_BYTES:
            yield segment[start:index]
            start, size = index, len(character.encode())
    yield segment[start:]


def age_file(fd: int) -> int:
    """Gives a finished file, not yet in place, a time of change that nothing else will give it; nanoseconds.

    It lies `_SETTLE` in the past, so the file has settled by birth, and a write by anybody else, whose time comes
    from the kernel's clock, cannot give it the same one.
    """
    stamp = time.time_ns() - _SETTLE
    os.utime(fd, ns=(stamp, stamp))
    return stamp


def unsettled(status: os.stat_result) -> float:
    """Seconds to wait until a further change of this file is certain to show in its times; 0.0 as a rule."""
    age = time.time_ns() - status.st_mtime_ns
    return (_SETTLE - age) / 1e9 if 0 <= age < _SETTLE else 0.0


class LocalDirectory:
    """One root directory. Holds no descriptors, so threads and forked processes can share it."""

    def __init__(self, root: Path, *, lock_timeout: float = 30.0) -> None:
        """`lock_timeout`: seconds after which a lock that another process holds is StoreUnavailable."""
        self.root = root
        self.hidden = root / HIDDEN
        self._temporary = self.hidden / "tmp"
        self._locks = self.hidden / "locks"
        self._lock_timeout = lock_timeout
        self._swept = False

    def path(self, key: str) -> Path:
        """Where the value of `key` lies. InvalidKey."""
        return self.root / encode_key(key)

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that start with `prefix` and have a file, sorted."""
        return sorted(key for key in self._walk(self.root, "", prefix) if key.startswith(prefix))

    def _walk(self, directory: Path, relative: str, prefix: str) -> Iterator[str]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
            for entry in entries:
                path = f"{relative}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if path != HIDDEN and _may_hold(path, prefix):
                        yield from self._walk(Path(entry.path), f"{path}/", prefix)
                elif entry.is_file() and (key := decode_path(path)) is not None:
                    yield key

    def open_value(self, key: str) -> int | None:
        """A descriptor to read the file of `key` by, which the caller closes; None if there is no such file."""
        try:
            # Not blocking, since somebody may have put a pipe here.
            fd = os.open(self.path(key), os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    @contextmanager
    def mapped(self, key: str = "") -> Iterator[None]:
        """Around what is done with our own files: StoreUnavailable or InvalidKey for what the system says of them."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidKey(f"key is too long for the file system: {key[:40]!r}...") from error
            where = error.filename or self.root / key
            raise StoreUnavailable(f"{where}: {error.strerror or error}") from error

    # -- new files --------------------------------------------------------------------------------------------------

    def new_file(self) -> AbstractContextManager[tuple[int, Path]]:
        """(descriptor, path) of a temporary file on the same file system as the root."""
        self._prepare()
        return temporary_file(self._temporary)

    def new_directory(self) -> AbstractContextManager[Path]:
        """A temporary directory on the same file system as the root."""
        self._prepare()
        return temporary_directory(self._temporary)

    def _prepare(self) -> None:
        self.make_directory(self._temporary)
        if not self._swept:  # what killed processes have left is found by the next one to start
            sweep(self._temporary)
            self._swept = True

    def put_in_place(self, temporary: Path, key: str) -> None:
        """Renames a finished file to the path of `key`, making the directories on the way.

        InvalidKey: `key` and a slash begin another key that is stored, or the other way round. No name can be a file
        and a directory at once.
        """
        path = self.path(key)
        while True:
            try:
                temporary.replace(path)
                return
            except FileNotFoundError:
                # The directory is missing, or a concurrent delete has just removed it as empty. Each further turn of
                # this loop means that somebody else made progress.
                if not temporary.exists():
                    raise
                self.make_directory(path.parent)
            except IsADirectoryError:
                try:
                    path.rmdir()  # left by a crash, or just about to be removed by a delete
                except FileNotFoundError:
                    continue
                except OSError:
                    raise InvalidKey(f"key is a directory of this store, with other keys in it: {key!r}") from None
            except NotADirectoryError:
                raise InvalidKey(f"key lies below another key, which no directory can: {key!r}") from None

    def make_directory(self, directory: Path) -> None:
        """`directory` and its parents, each flushed to disk where it was missing."""
        try:
            directory.mkdir(mode=0o755)
        except FileExistsError:
            return  # a file, perhaps: whoever uses it as a directory will hear so
        except FileNotFoundError:
            self.make_directory(directory.parent)
            self.make_directory(directory)
        else:
            flush_directory(directory.parent)

    def remove(self, path: Path) -> None:
        """Deletes a file, if it is there, and the directories that are empty without it."""
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except (IsADirectoryError, PermissionError):  # macOS says EPERM where Linux says EISDIR
            if path.is_dir():
                return
            raise
        parent = path.parent
        while parent != self.root:
            try:
                parent.rmdir()
            except FileNotFoundError:
                pass  # another delete was faster
            except OSError:
                break  # not empty
            parent = parent.parent
        flush_directory(parent)

    # -- locks ------------------------------------------------------------------------------------------------------

    def key_lock(self, key: str) -> AbstractContextManager[None]:
        """Holds the lock of `key` against all processes of this host. StoreUnavailable after the time-out."""
        return self.lock(f"key-{slot_of(key):02x}")

    @contextmanager
    def lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Holds the lock file `name`. Each call has a descriptor of its own, so it works between threads too."""
        give_up = time.monotonic() + self._lock_timeout
        while (fd := self._try_lock(name, shared=shared)) is None:
            if time.monotonic() > give_up:
                raise StoreUnavailable(f"{self._locks / name}: locked by another process for {self._lock_timeout:g} s")
            time.sleep(random.uniform(0.0, _LONGEST_NAP))
        try:
            yield
        finally:
            _unlock(fd)

    @contextmanager
    def lock_if_free(self, name: str) -> Iterator[bool]:
        """Holds the lock file `name` if nobody does, and says whether it does."""
        fd = self._try_lock(name, shared=False)
        try:
            yield fd is not None
        finally:
            if fd is not None:
                _unlock(fd)

    def _try_lock(self, name: str, *, shared: bool) -> int | None:
        path = self._locks / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        except FileNotFoundError:
            self.make_directory(self._locks)
            return self._try_lock(name, shared=shared)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass  # held; or an operator removed the directory meanwhile, and this lock is nobody else's
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None


def slot_of(name: str) -> int:
    """Which of the LOCK_SLOTS locks a name shares."""
    return hashlib.sha256(name.encode()).digest()[0] % LOCK_SLOTS


def _unlock(fd: int) -> None:
    # Explicitly, since a process forked meanwhile has inherited the descriptor and would keep the lock by it.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _may_hold(directory: str, prefix: str) -> bool:
    """Whether keys below a directory can start with `prefix`; True where an escaped name makes it hard to tell."""
    if HIDDEN in directory:
        return True
    begin = f"{directory}/"
    return begin.startswith(prefix) or prefix.startswith(begin)
