"""`file:///dir`: releases in a directory, `<dir>/<version>/<artifact>`, of this host or of a network share.

Put an artifact in place by renaming it (or copy it under a name ending in `.part` first). One that is still being
copied under its own name is noticed while it is fetched, and fetched again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from dewy.registry.base import Now, Progress
from dewy.registry.checksums import Mode
from dewy.registry.keys import with_parameter
from dewy.registry.layout import LayoutRegistry
from dewy.registry.platform import Platform, is_temporary
from dewy.registry.url import RegistryURL
from kvcache import NotFound, Stat, StoreUnavailable, Version

T = TypeVar("T")
CHUNK: Final = 1024 * 1024


def open_file(
    url: RegistryURL, platform: Platform, *, now: Now, hostname: str, max_artifact: int, checksums: Mode = "auto"
) -> LayoutRegistry:
    """The registry of a directory. It need not exist yet: a share may be mounted later. ConfigError.

    The host is part of the scope, since another host's directory of the same name may hold something else.
    """
    url.reject_unknown(("report",))
    directory = url.path.rstrip("/")
    if not directory.startswith("/") or "\x00" in directory:
        raise url.wrong("directory", url.place, "file:///absolute/dir")
    return LayoutRegistry(
        replace(url, scope=with_parameter(url.scope, "host", hostname)),
        Directory(Path(directory)),
        platform,
        prefix=f"file://{url.place.rstrip('/')}/",
        reports=url.flag("report"),
        now=now,
        hostname=hostname,
        max_artifact=max_artifact,
        checksums=checksums,
    )


class Directory:
    """A directory as the tree of `dewy.registry.tree`. It is never created, and written to by `write` alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self, prefix: str = "") -> Iterator[str]:
        """Files of the directories in it, two levels deep; no hidden ones, and none whose name is no text."""
        try:
            for version in _names(self._path, os.DirEntry.is_dir):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it has just been removed
                    for name in _names(self._path / version, os.DirEntry.is_file):
                        if f"{version}/{name}".startswith(prefix):
                            yield f"{version}/{name}"
            if not self._path.is_dir():  # the whole tree went in the meantime
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        except OSError as error:
            raise StoreUnavailable(f"cannot list {self._path}: {error.strerror or error}") from error

    def stat(self, key: str) -> Stat:
        return self._asked(key, lambda path: _stat(path.stat()))

    def read(self, key: str) -> bytes:
        return self._asked(key, Path.read_bytes)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._asked(key, lambda file: file.open("rb")))
            target = stack.enter_context(Path(path).open("wb"))
            left = size = os.fstat(source.fileno()).st_size  # no further, or a file that grows would never end
            while left and (piece := self._asked(key, functools.partial(_read, source, left))):
                target.write(piece)
                left -= len(piece)
                if progress is not None:
                    progress(size - left)
            target.flush()
            os.fsync(target.fileno())
            return _stat(os.fstat(source.fileno()))

    def write(self, key: str, data: bytes) -> None:
        self._asked(key, lambda path: path.write_bytes(data))

    def close(self) -> None:
        pass

    def _asked(self, key: str, ask: Callable[[Path], T]) -> T:
        try:
            return ask(self._path / key)
        except FileNotFoundError:
            raise NotFound(key) from None
        except OSError as error:
            raise StoreUnavailable(f"{key}: {error.strerror or error}") from error


def _names(directory: Path, kind: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    """Sorted names of what is in a directory and of this kind. OSError."""
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if not is_temporary(e.name) and e.name.isprintable() and kind(e))


def _read(source: BinaryIO, left: int, _: Path) -> bytes:
    return source.read(min(CHUNK, left))


def _stat(found: os.stat_result) -> Stat:
    token = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
    return Stat(found.st_size, Version(token), found.st_mtime)
