"""One repository for one test, on a fake GitHub that many tests share."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from dewy.registry import Announced, Platform
from dewy.registry.ghr import GitHubReleases
from dewy.registry.url import parse_registry_url
from kvcache import LoadContext
from tests.fakes.github import FakeGitHub

LINUX = Platform("linux", "amd64", "gnu")
NAME = "app_linux_amd64.tar.gz"
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
TOKEN = {"GH_TOKEN": "ghp_secret"}


class Repo:
    """One test's own repository on the shared server, and what was called since the test began."""

    def __init__(self, server: FakeGitHub, name: str) -> None:
        self.server = server
        self.name = name
        self.since = len(server.calls())

    def publish(self, tag: str, assets: Any = None, **about: Any) -> dict[str, Any]:
        return self.server.publish(tag, {NAME: b"data"} if assets is None else assets, repo=self.name, **about)

    def open(
        self,
        query: str = "",
        platform: Platform = LINUX,
        checksums: Any = "auto",
        slot: str = "",
        fallback: bool = False,
        **env: str,
    ) -> GitHubReleases:
        url = parse_registry_url(f"ghr://{self.name}{query}", slot=slot, fallback=fallback)
        return GitHubReleases(
            url,
            TOKEN | self.server.env | env,
            platform,
            now=lambda: MOMENT,
            hostname="Web-1",
            max_artifact=2**30,
            checksums=checksums,
            sleep=lambda seconds: None,
        )

    def calls(self, **which: Any) -> list[dict[str, Any]]:
        return self.server.calls(since=self.since, **which)

    def polls(self) -> list[dict[str, Any]]:
        return self.server.polls(since=self.since)

    def downloads(self) -> list[dict[str, Any]]:
        return self.server.downloads(since=self.since)


def context(last: Any = None, seconds: float = 20.0) -> LoadContext:
    deadline = time.monotonic() + seconds
    return LoadContext(last.value, last.validator, last.extra, deadline) if last else LoadContext(*[None] * 3, deadline)


def ask(registry: GitHubReleases, last: Any = None) -> Any:
    return registry.current(context(last))


def announced(loaded: Any) -> Announced:
    return Announced.from_value(loaded.value, loaded.extra)
