"""New files that appear whole or not at all, and what a killed writer of them leaves behind.

A file is written under a temporary name in the file system of its destination, flushed to disk, and renamed. While
its writer lives it holds a lock (flock) on it, so that litter can be told from work without asking how old it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_HOST: Final = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_ABANDONED: Final = 24 * 3600.0
"""Seconds after which a temporary file of another host, whose locks may not be visible here, counts as litter."""


def flush_to_disk(fd: int) -> None:
    """Returns when the file's bytes and size would survive a power loss."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync leaves the data in the drive's own cache there
    else:
        os.fsync(fd)


def flush_directory(directory: Path) -> None:
    """Returns when the names in `directory` would survive a power loss. A directory that is gone has none to lose."""
    with suppress(FileNotFoundError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes all of `data`; one write call may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


@contextmanager
def temporary_file(directory: Path, prefix: str = "") -> Iterator[tuple[int, Path]]:
    """(descriptor, path) of a new empty file, locked against `sweep`; unlinked at the end if it was not renamed."""

    def create(path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    fd, path = _create_locked(directory, prefix, create)
    try:
        yield fd, path
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


@contextmanager
def temporary_directory(directory: Path) -> Iterator[Path]:
    """A new empty directory, locked against `sweep`; removed at the end with all that is in it."""

    def create(path: Path) -> int | None:
        path.mkdir()
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # a sweep came in between
            return None

    fd, path = _create_locked(directory, "", create)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends; after an error nothing of it is left.

    Its temporary file stands beside `path`, and so does that of a killed process, until the next `replacing(path)`.
    """
    target = Path(path)
    prefix = f".{hashlib.sha256(target.name.encode(errors='surrogateescape')).hexdigest()[:12]}.part-"
    sweep(target.parent, prefix)
    with temporary_file(target.parent, prefix) as (fd, temporary):
        with open(fd, "wb", closefd=False) as file:
            yield file
        flush_to_disk(fd)
        temporary.replace(target)
    flush_directory(target.parent)


def sweep(directory: Path, prefix: str = "") -> None:
    """Removes the temporary files and directories, with this prefix, of writers that are dead.

    What cannot be removed stays: litter is no reason for a write to fail.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path), of_this_host=entry.name.startswith(prefix + _HOST))


def _remove_if_dead(path: Path, *, of_this_host: bool) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            of_this_host = False  # no locks on this file system: only age can tell
        status = os.fstat(fd)
        if not of_this_host and time.time() - status.st_mtime < _ABANDONED:
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _create_locked(directory: Path, prefix: str, create: Callable[[Path], int | None]) -> tuple[int, Path]:
    """Something new that is locked; anew if a sweep took it for litter between its creation and its lock.

    `create` returns its descriptor, or None if it was swept before it could be opened.
    """
    while True:
        path = directory / f"{prefix}{_HOST}-{secrets.token_hex(8)}"
        fd = create(path)
        if fd is None:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd, path
        except (BlockingIOError, FileNotFoundError):
            pass  # swept
        except OSError:
            return fd, path  # no locks on this file system: a sweep then goes by age alone
        os.close(fd)
