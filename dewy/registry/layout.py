"""Registries that are a tree of files, `<version>/<artifact>`: a directory now, a bucket just as well.

All that is needed of the tree is a list of its keys, and the size, time and bytes of one: a `kvcache.Store` is one as
it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from dewy.errors import DewyError
from dewy.registry import base
from dewy.registry.base import Announced, Fetched, Now, Pending, Progress
from dewy.registry.keys import platform_scope
from dewy.registry.landing import WrongBytes, check, measure, part_of
from dewy.registry.platform import Platform, choose, is_temporary
from dewy.registry.url import RegistryURL
from dewy.versions import newest, slot
from kvcache import LoadContext, Loaded, NotFound, Stat, StoreUnavailable, UpstreamError

REPORT_PREFIX: Final = "shipped_to_"
"""How the names of reports begin, which lie among the artifacts."""


class Tree(Protocol):
    """What a registry of this layout needs of a store, and asks in the store's words."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys, sorted. StoreUnavailable."""

    def stat(self, key: str) -> Stat:
        """NotFound, StoreUnavailable."""

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        """Streams to a file. NotFound, StoreUnavailable."""

    def write(self, key: str, data: bytes) -> object:
        """StoreUnavailable."""

    def close(self) -> None:
        """Twice is not an error."""


class LayoutRegistry:
    """Releases in a tree of files; see `dewy.registry.base.Registry`.

    `prefix` and `suffix` stand around a key in an artifact's URL. `reports`: whether `report` leaves a note beside the
    artifact; not every tree may be written to.
    """

    def __init__(
        self,
        url: RegistryURL,
        tree: Tree,
        platform: Platform,
        *,
        prefix: str,
        suffix: str = "",
        reports: bool,
        now: Now,
        hostname: str,
        max_artifact: int,
    ) -> None:
        self.scope = url.scope if url.artifact else platform_scope(url.scope, platform)
        self.describe = url.describe
        self._tree = tree
        self._platform = platform
        self._prefix = prefix
        self._suffix = suffix
        self._reports = reports
        self._now = now
        self._hostname = hostname
        self._max_artifact = max_artifact
        self._artifact = url.artifact
        self._pre_release = url.flag("pre-release")
        self._calver = url.calver()

    def close(self) -> None:
        self._tree.close()

    def current(self, ctx: LoadContext) -> Loaded[dict[str, Any]]:
        try:
            return base.published(self._look(ctx), ctx)
        except (NotFound, StoreUnavailable) as error:  # NotFound: it went between the list and the look at it
            raise UpstreamError(f"{self.describe}: {error}") from error

    def _look(self, ctx: LoadContext) -> Announced | Pending:
        versions: dict[str, list[str]] = {}
        for key in self._tree.list():
            version, _, name = key.partition("/")
            if name:
                versions.setdefault(version, []).append(name)
        tag = newest(versions, pre_release=self._pre_release, calver=self._calver)
        if tag is None:
            raise UpstreamError(f"{self.describe}: failed to find latest version: no valid versioned object found")
        chosen = self._choose(tag, versions[tag], ctx)
        if chosen is None:
            return base.artifact_pending(self._artifact, tag, self._released_at(tag, versions[tag]))
        stat = self._tree.stat(f"{tag}/{chosen}")
        return Announced(
            id=base.answer_id(self._now()),
            tag=tag,
            artifact_url=f"{self._prefix}{tag}/{chosen}{self._suffix}",
            created_at=_moment(stat.modified),
            slot=slot(tag, self._calver),
            size=stat.size,
        )

    def _choose(self, tag: str, names: list[str], ctx: LoadContext) -> str | None:
        whole = [name for name in names if _is_artifact(f"{tag}/{name}")]
        if self._artifact:
            return self._artifact if self._artifact in whole else None
        last = base.previous_answer(ctx)
        keep = last.name if last is not None and last.tag == tag else None
        return choose((n for n in whole if not n.startswith(REPORT_PREFIX)), self._platform, keep=keep)

    def _released_at(self, tag: str, names: list[str]) -> datetime | None:
        """When a version appeared: the time of its first file, as v2 has it."""
        return _moment(self._tree.stat(f"{tag}/{names[0]}").modified)

    def fetch(
        self,
        announced: Announced,
        path: str | os.PathLike[str],
        progress: Progress | None = None,
        *,
        deadline: float | None = None,
    ) -> Fetched:
        """The tree's own time-outs hold; `deadline` does not."""
        key = f"{announced.tag}/{announced.name}"
        # The announcement may come out of a shared store: what it names has to be an artifact of this registry.
        if announced.artifact_url != f"{self._prefix}{key}{self._suffix}" or not _is_artifact(key):
            raise UpstreamError(f"{announced.artifact_url}: not an artifact of {self.describe}")
        part = part_of(Path(path))
        try:
            before = self._tree.stat(key)
            if before.size > self._max_artifact:
                raise WrongBytes(f"{announced.name}: larger than the {self._max_artifact} bytes allowed")
            self._tree.download(key, part, progress)
            fetched = check(announced, measure(part))
            if self._tree.stat(key).version != before.version:
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

    def report(self, announced: Announced, command: str) -> None:
        """Leaves an empty file beside the artifact, named by host, command and time."""
        if not self._reports:
            return
        text = base.report_text(self._hostname, command, self._now())
        try:
            self._tree.write(f"{announced.tag}/{text.replace(' ', '_')}.txt", b"")
        except StoreUnavailable as error:
            raise UpstreamError(f"{self.describe}: {error}") from error


def _is_artifact(key: str) -> bool:
    """Whether a key can be an artifact: a whole file in a version's own directory."""
    version, _, name = key.partition("/")
    if "?" in name or not key.isprintable():  # "?" would end the name in the artifact's URL
        return False
    return version not in ("", ".", "..") and "/" not in name and not is_temporary(name)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
