"""Fixtures of the tests of the documentation."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.dewy.site import Site
from tests.fakes.github import FakeGitHub
from tests.servers import Consul, FakeGCS, Redis, Seaweed


class SessionServers:
    """The session's servers, each started when a page first needs it."""

    def __init__(self, request: pytest.FixtureRequest, github: FakeGitHub, content: Site) -> None:
        self._request = request
        self._github = github
        self._content = content
        self._buckets: set[tuple[str, str]] = set()
        self._published: set[tuple[str, ...]] = set()

    def github(self) -> FakeGitHub:
        return self._github

    def publish(self, repository: str, tag: str, name: str, data: bytes) -> None:
        if (repository, tag) not in self._published:
            self._github.publish(tag, {name: data}, repo=repository)
        elif (repository, tag, name) not in self._published:
            self._github.add_asset(tag, name, data, repo=repository)
        self._published |= {(repository, tag), (repository, tag, name)}

    def s3(self) -> Seaweed:
        server: Seaweed = self._request.getfixturevalue("seaweedfs")
        return server

    def gcs(self) -> FakeGCS:
        server: FakeGCS = self._request.getfixturevalue("fake_gcs")
        return server

    def redis(self) -> Redis:
        server: Redis = self._request.getfixturevalue("redis")
        return server

    def consul(self) -> Consul:
        server: Consul = self._request.getfixturevalue("consul")
        return server

    def anything(self) -> str:
        """A server that is content with whatever it is sent."""
        return self._content.url

    def bucket(self, server: Seaweed | FakeGCS, name: str) -> None:
        if (server.name, name) not in self._buckets:
            self._buckets.add((server.name, name))
            server.create_bucket(name)


@pytest.fixture(scope="session")
def github_of_pages() -> Iterator[FakeGitHub]:
    with FakeGitHub() as running:
        yield running


@pytest.fixture(scope="session")
def page_servers(request: pytest.FixtureRequest, github_of_pages: FakeGitHub) -> Iterator[SessionServers]:
    with Site(lambda asked: asked.reply(200, b'{"ok": true}', Content_Type="application/json")) as content:
        threading.Thread(target=content.serve_forever, args=(0.1,), daemon=True).start()
        yield SessionServers(request, github_of_pages, content)
        content.shutdown()
