"""Puts what the policy has admitted on the disk, in a fresh private directory, and makes it durable."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from dewy.archive.limits import Limits, Meter
from dewy.archive.policy import Entry, Kind, Tree, exact, folded
from dewy.errors import UnsafeArchive

DIRECTORY_MODE = 0o755
"""Mode of directories that no entry describes."""
SYNC_THREADS = 8
"""fsyncs in flight: a journalling file system commits those that wait together as one."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LAST_TIME = 1 << 33  # seconds; times beyond (year 2242) are noise, and overflow on some file systems


class Writer:
    """The directory that an archive becomes. One writer, one archive, one thread."""

    def __init__(self, root: Path, meter: Meter, limits: Limits) -> None:
        """`root`: an empty directory that only this process knows."""
        self.meter = meter
        self.content = 0
        self._tree = Tree(limits, folded if ignores_case(root) else exact)
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files: list[str] = []
        self._directories: dict[str, Entry | None] = {"": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def place(self, entry: Entry) -> None:
        """Admits and places anything but a file; UnsafeArchive if the policy refuses it."""
        path, target = self._admit(entry)
        if entry.kind is Kind.HARDLINK:
            with _new_name(entry):
                os.link(target, path, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        elif entry.kind is Kind.DIRECTORY and path:
            if path not in self._directories:
                with _new_name(entry):
                    os.mkdir(path, 0o700, dir_fd=self._fd)
            self._directories[path] = entry

    def file(self, entry: Entry) -> OpenFile:
        """Admits and creates a file, to be filled. Close it, as a context manager, when it is complete."""
        path, _ = self._admit(entry)
        with _new_name(entry):
            fd = os.open(path, _CREATE, 0o600, dir_fd=self._fd)
        self._files.append(path)
        return OpenFile(self, fd, entry)

    def finish(self, *, durable: bool) -> None:
        """Places the symbolic links, gives directories their modes and times; if `durable`, fsyncs everything."""
        for path, entry in self._tree.symlinks():
            with _new_name(entry):
                os.symlink(entry.target, path, dir_fd=self._fd)
        for path, described in reversed(self._directories.items()):
            mode = DIRECTORY_MODE if described is None else (described.mode & 0o777) | stat.S_IRWXU
            os.chmod(path or ".", mode, dir_fd=self._fd)
            if described is not None:
                set_time(path, described.mtime, dir_fd=self._fd)
        if durable:
            with ThreadPoolExecutor(SYNC_THREADS, "dewy-fsync") as pool:
                # list(): the error of any fsync (EIO, ENOSPC of a delayed allocation) is this archive's error.
                list(pool.map(self._sync, [*self._files, *reversed(self._directories)]))

    def _admit(self, entry: Entry) -> tuple[str, str]:
        self.meter.entry(entry.name, entry.size)
        admitted = self._tree.admit(entry)
        for parent in admitted.parents:
            os.mkdir(parent, 0o700, dir_fd=self._fd)
            self._directories[parent] = None
        return admitted.path, admitted.target

    def _sync(self, path: str) -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class OpenFile:
    """One file on its way to the disk. Its mode and time are set when it is closed without an error."""

    def __init__(self, writer: Writer, fd: int, entry: Entry) -> None:
        self._writer = writer
        self._fd = fd
        self._entry = entry

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.fchmod(self._fd, (self._entry.mode & 0o777) | stat.S_IRUSR | stat.S_IWUSR)
                set_time(self._fd, self._entry.mtime)
        finally:
            os.close(self._fd)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes all of `data`."""
        size = len(data)
        written = os.write(self._fd, data)
        while written < size:
            written += os.write(self._fd, memoryview(data)[written:])
        self._writer.content += size
        return size


@contextlib.contextmanager
def _new_name(entry: Entry) -> Iterator[None]:
    """Around what creates a name, and never replaces one: the last net, whatever a file system takes for equal."""
    try:
        yield
    except FileExistsError as error:
        raise UnsafeArchive("a name that this file system takes for an earlier one", entry=entry.name) from error


def set_time(path: str | int, mtime: float | None, dir_fd: int | None = None) -> None:
    """Sets the time of last change, if the archive tells a plausible one: a wrong time is no reason to fail."""
    if mtime is not None and 0 <= mtime < _LAST_TIME:
        nanoseconds = int(mtime * 1_000_000_000)
        os.utime(path, ns=(nanoseconds, nanoseconds), dir_fd=dir_fd)


def ignores_case(directory: Path) -> bool:
    """Whether the file system of a directory takes names for equal that differ in case, as macOS does by default."""
    other = directory.with_name(directory.name.swapcase())
    return other != directory and other.exists()


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable: what was created, renamed or removed there survives a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
