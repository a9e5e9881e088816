"""A tree of files that holds releases, `<version>/<file>`: what is asked of it, and how an artifact is copied out.

A `kvcache.Store` is such a tree as it is, and so is a directory (`dewy.registry.file`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from dewy.errors import DewyError
from dewy.registry.base import Announced, Fetched, Progress
from dewy.registry.landing import BeyondLimit, WrongBytes, check, measure, part_of
from dewy.registry.platform import is_temporary
from kvcache import KVCacheError, NotFound, Stat, StoreUnavailable, UpstreamError


class Tree(Protocol):
    """What a registry of this layout needs of a store, and asks in the store's words."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys, sorted. StoreUnavailable."""

    def stat(self, key: str) -> Stat:
        """NotFound, StoreUnavailable."""

    def read(self, key: str) -> bytes:
        """A small file, whole. NotFound, StoreUnavailable."""

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        """Streams to a file. NotFound, StoreUnavailable."""

    def write(self, key: str, data: bytes) -> object:
        """StoreUnavailable."""

    def close(self) -> None:
        """Twice is not an error."""


class TreeFiles:
    """The files of one version, for `dewy.registry.beside`. `names` may hold what lies in directories below it."""

    def __init__(self, tree: Tree, version: str, names: Iterable[str]) -> None:
        self._tree = tree
        self._version = version
        self.names: Final = [name for name in names if is_artifact(f"{version}/{name}")]

    @classmethod
    def listed(cls, tree: Tree, version: str) -> TreeFiles:
        """With the names that are there now. UpstreamError."""
        top = f"{version}/"
        try:
            return cls(tree, version, [key.removeprefix(top) for key in tree.list(top)])
        except KVCacheError as error:
            raise UpstreamError(f"{version}: {error}") from error

    def mark(self, name: str) -> str:
        return self._stat(name).version.token

    def read(self, name: str, limit: int) -> bytes:
        if self._stat(name).size > limit:
            raise UpstreamError(f"{name}: larger than the {limit} bytes that are read of such a file")
        try:
            return self._tree.read(f"{self._version}/{name}")
        except KVCacheError as error:
            raise UpstreamError(f"{name}: {error}") from error

    def _stat(self, name: str) -> Stat:
        try:
            return self._tree.stat(f"{self._version}/{name}")
        except KVCacheError as error:
            raise UpstreamError(f"{name}: {error}") from error


def copy(
    tree: Tree, key: str, announced: Announced, path: Path, *, limit: int, progress: Progress | None = None
) -> Fetched:
    """The file under `key` to `path`, which appears whole and as announced or not at all.

    WrongBytes: it is not what was announced, or changed meanwhile; UpstreamError: it is not to be had. DewyError: the
    disk.
    """
    part = part_of(path)
    try:
        before = tree.stat(key)
        if before.size > limit:
            raise BeyondLimit(f"{announced.name}: larger than the {limit} bytes allowed")
        tree.download(key, part, progress)
        fetched = check(announced, measure(part))
        if tree.stat(key).version != before.version:
            raise WrongBytes(f"{announced.name}: changed while it was copied")
        part.replace(path)
    except (NotFound, StoreUnavailable) as error:
        raise UpstreamError(f"{announced.artifact_url}: {error}") from error
    except OSError as error:
        raise DewyError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()  # where it was not put in place
    return fetched


def is_artifact(key: str) -> bool:
    """Whether a key can be an artifact: a whole file in a version's own directory."""
    version, _, name = key.partition("/")
    if not name or "?" in name or not key.isprintable():  # "?" would end the name in the artifact's URL
        return False
    return version not in ("", ".", "..") and "/" not in name and not is_temporary(name)
