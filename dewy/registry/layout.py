"""Registries that are a tree of files, `<version>/<artifact>`: a directory now, a bucket just as well.

What is asked of the tree stands in `dewy.registry.tree`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dewy.registry import base
from dewy.registry.base import Announced, Fetched, Now, Pending, Progress
from dewy.registry.checksums import Mode, is_wanted, vouched, vouched_or_pending, with_mode
from dewy.registry.choice import choose_version
from dewy.registry.keys import platform_scope
from dewy.registry.platform import Platform, choose
from dewy.registry.tree import Tree, TreeFiles, copy, is_artifact
from dewy.registry.url import RegistryURL
from kvcache import KVCacheError, LoadContext, Loaded, NotFound, StoreUnavailable, UpstreamError

REPORT_PREFIX: Final = "shipped_to_"
"""How the names of reports begin, which lie among the artifacts."""


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
        checksums: Mode = "auto",
    ) -> None:
        self.scope = with_mode(url.scope if url.artifact else platform_scope(url.scope, platform), checksums)
        self.describe = url.describe
        self._tree = tree
        self._platform = platform
        self._prefix = prefix
        self._suffix = suffix
        self._reports = reports
        self._now = now
        self._hostname = hostname
        self._max_artifact = max_artifact
        self._checksums: Mode = checksums
        self._artifact = url.artifact
        self._rule = url.rule()

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
        last = base.previous_answer(ctx)
        choice = choose_version(
            versions, self._rule, lambda tag: self._choose(tag, versions[tag], last), last.tag if last else None
        )
        if choice is None:
            raise UpstreamError(f"{self.describe}: failed to find latest version: no valid versioned object found")
        tag = choice.tag
        if choice.name is None:
            return base.artifact_pending(self._artifact, tag, self._released_at(tag, versions[tag]))
        stat = self._tree.stat(f"{tag}/{choice.name}")
        found = Announced(
            id=base.answer_id(self._now()),
            tag=tag,
            artifact_url=f"{self._prefix}{tag}/{choice.name}{self._suffix}",
            created_at=_moment(stat.modified),
            slot=choice.slot,
            size=stat.size,
            newest=choice.newest,
        )
        files = TreeFiles(self._tree, tag, versions[tag])
        return vouched_or_pending(found, files, self._checksums, last)

    def _choose(self, tag: str, names: list[str], last: Announced | None) -> str | None:
        whole = [name for name in names if is_artifact(f"{tag}/{name}")]
        if self._artifact:
            return self._artifact if self._artifact in whole else None
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
        if announced.artifact_url != f"{self._prefix}{key}{self._suffix}" or not is_artifact(key):
            raise UpstreamError(f"{announced.artifact_url}: not an artifact of {self.describe}")
        if is_wanted(announced, self._checksums):
            announced = vouched(announced, TreeFiles.listed(self._tree, announced.tag), self._checksums)
        return copy(self._tree, key, announced, Path(path), limit=self._max_artifact, progress=progress)

    @contextmanager
    def beside(self, announced: Announced, *, deadline: float) -> Iterator[TreeFiles]:
        """The tree's own time-outs hold; `deadline` does not."""
        yield TreeFiles.listed(self._tree, announced.tag)

    def report(self, announced: Announced, command: str) -> None:
        """Leaves an empty file beside the artifact, named by host, command and time; one for each host and command."""
        if not self._reports:
            return
        text = base.report_text(self._hostname, command, self._now())
        try:
            if not any(self._tree.list(f"{announced.tag}/{base.report_start(text)}")):
                self._tree.write(f"{announced.tag}/{base.report_name(text)}", b"")
        except KVCacheError as error:
            raise UpstreamError(f"{self.describe}: {error}") from error


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
