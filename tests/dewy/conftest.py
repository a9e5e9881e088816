"""Fixtures of dewy's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dewy.github_repo import Repo
from tests.fakes.github import FakeGitHub


@pytest.fixture(scope="session")
def fake_github() -> Iterator[FakeGitHub]:
    """A counted GitHub for all tests. Take a repository of your own on it: `repo`."""
    with FakeGitHub() as running:
        yield running


@pytest.fixture
def repo(fake_github: FakeGitHub, request: pytest.FixtureRequest) -> Iterator[Repo]:
    """A repository without releases, on a GitHub that behaves."""
    yield Repo(fake_github, f"acme/app-{abs(hash(request.node.name))}")
    for target in ("api", "assets", "uploads"):
        fake_github.mode("healthy", target)
    fake_github.configure(
        private=False, tokens=None, page_size=100, redirect=True, redirect_to="", ranges=True, etag_by_token=True
    )
