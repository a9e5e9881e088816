"""`ghr://owner/repo` against a counted GitHub in a process of its own: bytes and reports."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dewy.registry import Announced, open_registry
from dewy.registry.base import FETCH_WITHIN
from dewy.registry.ghr import GitHubReleases
from dewy.registry.landing import WrongBytes
from kvcache import UpstreamError
from tests.dewy.github_repo import LINUX, NAME, TOKEN, Repo, announced, ask

# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data() -> bytes:
    return os.urandom(2_000_000)


def one(repo: Repo, data: bytes, **env: str) -> tuple[GitHubReleases, Announced]:
    repo.publish("v1.0.0", {NAME: data})
    registry = repo.open(**env)
    return registry, announced(ask(registry))


def test_a_fetch_follows_the_redirect_without_the_token(repo: Repo, tmp_path: Path, data: bytes) -> None:
    """R2."""
    registry, found = one(repo, data)
    seen: list[int] = []
    fetched = registry.fetch(found, tmp_path / "out", seen.append)
    assert (tmp_path / "out").read_bytes() == data
    assert (fetched.size, fetched.digest) == (len(data), found.digest)
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (asset,) = repo.calls(host="api", path=f"/assets/{found.asset}")
    assert (asset["accept"], asset["token"], asset["status"]) == ("application/octet-stream", "ghp_secret", 302)
    (download,) = repo.downloads()
    assert not download["authorization"]


def test_an_api_that_sends_the_bytes_itself(repo: Repo, tmp_path: Path, data: bytes) -> None:
    repo.server.configure(redirect=False)
    registry, found = one(repo, data)
    registry.fetch(found, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("by_reset", [False, True])
def test_a_broken_download_is_resumed(repo: Repo, tmp_path: Path, data: bytes, by_reset: bool) -> None:
    registry, found = one(repo, data)
    repo.server.mode("cut", "assets", times=2, reset=by_reset, after=500_000)
    registry.fetch(found, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    calls = repo.downloads()
    assert [call["status"] for call in calls] == [200, 206, 206]
    assert [call["range"] is None for call in calls] == [True, False, False]
    assert not any(call["authorization"] for call in calls)


def test_a_host_that_cannot_resume_starts_again(repo: Repo, tmp_path: Path, data: bytes) -> None:
    repo.server.configure(ranges=False)
    registry, found = one(repo, data)
    repo.server.mode("cut", "assets", times=2)
    registry.fetch(found, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert [call["status"] for call in repo.downloads()] == [200] * 3


def test_tries_are_bounded(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    repo.server.mode("cut", "assets", after=1000)
    with pytest.raises(UpstreamError, match="broke before the answer was complete"):
        registry.fetch(found, tmp_path / "out")
    assert len(repo.downloads()) == 5
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_replace_others_in_the_middle_are_not_mixed(repo: Repo, tmp_path: Path) -> None:
    """No digest, and the bytes under the asset's number change between two tries: the ETag notices."""
    repo.publish("v1.0.0", {})
    asset = repo.server.add_asset("v1.0.0", NAME, b"a" * 1_000_000, repo=repo.name, digest=None)
    registry = repo.open()
    found = announced(ask(registry))
    assert found.digest is None
    repo.server.mode("cut", "assets", times=1, after=400_000)

    def replaced(received: int) -> None:
        (repo.server.dir / "state" / "assets" / str(asset["id"])).write_bytes(b"b" * 1_000_000)

    registry.fetch(found, tmp_path / "out", replaced)
    assert (tmp_path / "out").read_bytes() == b"b" * 1_000_000


def test_wrong_bytes_are_refused(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    repo.server.mode("corrupt", "assets")
    with pytest.raises(WrongBytes, match=r"its digest is sha256:[0-9a-f]{64}, announced was sha256:"):
        registry.fetch(found, tmp_path / "out")
    repo.server.mode("healthy", "assets")
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(WrongBytes, match="announced"):
            registry.fetch(replace(found, digest=None, size=size), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_beyond_the_limit_is_refused(repo: Repo, tmp_path: Path, data: bytes) -> None:
    _, found = one(repo, data)
    env = TOKEN | repo.server.env
    registry = open_registry(f"ghr://{repo.name}", env=env, platform=LINUX, max_artifact=len(data) - 1)
    with pytest.raises(WrongBytes, match="larger than the 1999999 bytes allowed"):
        registry.fetch(replace(found, size=None), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_announcement_of_v2_names_no_asset(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    registry.fetch(Announced.from_value(found.to_value()), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_an_asset_that_was_uploaded_again(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    repo.server.add_asset("v1.0.0", NAME, data, repo=repo.name)
    registry.fetch(found, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    repo.server.add_asset("v1.0.0", NAME, b"other bytes", repo=repo.name)
    with pytest.raises(WrongBytes):  # the announcement is out of date; the next one will have it
        registry.fetch(found, tmp_path / "again")


def test_an_artifact_that_is_gone(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    repo.server.withdraw("v1.0.0", repo=repo.name)
    with pytest.raises(UpstreamError, match=rf"artifact not found: {NAME} of release v1\.0\.0"):
        registry.fetch(found, tmp_path / "out")


@pytest.mark.parametrize("mode", ["outage", "drop", "secondary"])
def test_a_download_that_does_not_begin_fails_at_once(repo: Repo, tmp_path: Path, data: bytes, mode: Any) -> None:
    registry, found = one(repo, data)
    repo.server.mode(mode, "assets")
    with pytest.raises(UpstreamError):
        registry.fetch(found, tmp_path / "out")
    assert len(repo.downloads()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_download_ends_at_its_deadline(repo: Repo, tmp_path: Path, data: bytes, mode: Any) -> None:
    registry, found = one(repo, data)
    repo.server.mode(mode, "assets")
    began = time.monotonic()
    with pytest.raises(UpstreamError):
        registry.fetch(found, tmp_path / "out", deadline=time.monotonic() + 0.6)
    assert time.monotonic() - began < 10 < FETCH_WITHIN
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["ghr://evil/app/tag/v1.0.0/x", "file:///etc/passwd", "ghr://{repo}/tag/v9/{name}", "ghr://{repo}/tag/v1.0.0/"],
)
def test_an_announcement_of_another_place_is_refused(repo: Repo, tmp_path: Path, url: str) -> None:
    registry, found = one(repo, b"data")
    before = len(repo.calls())
    elsewhere = replace(found, artifact_url=url.format(repo=repo.name, name=NAME), asset=None)
    with pytest.raises(UpstreamError):
        registry.fetch(elsewhere, tmp_path / "out")
    assert all(call["path"].startswith(f"/repos/{repo.name}/") for call in repo.calls()[before:])


def test_memory_stays_flat(repo: Repo, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(2**20))
    repo.publish("v1.0.0", {NAME: source})
    registry = repo.open()
    found = announced(ask(registry))
    tracemalloc.start()
    registry.fetch(found, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size == 64 * 2**20
    assert peak < 8 * 2**20


# -- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_goes_where_the_release_says(repo: Repo) -> None:
    """R1."""
    registry, found = one(repo, b"data")
    registry.report(found, "server")
    (upload,) = repo.calls(host="uploads")
    assert (upload["status"], upload["token"]) == (201, "ghp_secret")
    release = repo.publish("v1.0.0", {}, name="same")
    report = release["assets"][-1]
    assert report["name"] == "shipped_to_web-1_server_at_20260501T000000.000000000Z.txt"
    text = b"shipped to web-1 server at 20260501T000000.000000000Z"
    assert report["digest"] == f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert report["content_type"] == "text/plain"
    assert announced(ask(registry)).name == NAME  # a report is no artifact


def test_reports_that_cannot_be_made(repo: Repo) -> None:
    registry, found = one(repo, b"data")
    repo.server.mode("status", "uploads", status=403, message="Resource not accessible")
    with pytest.raises(UpstreamError, match=r"POST an asset of v1\.0\.0: 403"):
        registry.report(found, "server")
    repo.publish("v1.0.0", {}, upload_url="ftp://elsewhere.example/{?name}")
    with pytest.raises(UpstreamError, match="no address for uploads that can be trusted"):
        registry.report(found, "server")
    repo.server.withdraw("v1.0.0", repo=repo.name)
    with pytest.raises(UpstreamError, match=r"^release not found: v1\.0\.0$"):
        registry.report(found, "server")


# -- many at once -----------------------------------------------------------------------------------------------------


def test_threads_share_a_registry(repo: Repo, tmp_path: Path, data: bytes) -> None:
    registry, found = one(repo, data)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            assert announced(ask(registry)) == found
            registry.fetch(found, tmp_path / str(number))
            assert (tmp_path / str(number)).read_bytes() == data
        except BaseException as error:  # to be raised in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(list(tmp_path.iterdir())) == 12
