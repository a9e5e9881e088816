"""`ghr://owner/repo` against a counted GitHub in a process of its own: what is announced."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dewy.errors import ArtifactNotFound
from dewy.registry import Announced, Pending, Platform
from dewy.registry.ghr import GitHubReleases
from kvcache import NOT_MODIFIED, SharedCache, UpstreamError, UpstreamUnavailable, open_store
from tests.dewy.github_repo import LINUX, NAME, Repo, announced, ask, context

# -- which release, which file ----------------------------------------------------------------------------------------


def test_the_newest_release_is_announced(repo: Repo) -> None:
    release = repo.publish("v1.10.0", published_at="2026-04-30T01:02:03Z")
    repo.publish("v1.9.0")  # listed first, since it is younger
    repo.publish("nightly")
    repo.publish("v2.0.0-rc.1")
    asset = release["assets"][0]
    assert announced(ask(repo.open())) == Announced(
        id="20260501T000000Z",
        tag="v1.10.0",
        artifact_url=f"ghr://{repo.name}/tag/v1.10.0/{NAME}",
        created_at=datetime(2026, 4, 30, 1, 2, 3, tzinfo=UTC),
        digest=f"sha256:{hashlib.sha256(b'data').hexdigest()}",
        size=4,
        asset=asset["id"],
    )
    assert announced(ask(repo.open("?pre-release=true"))).tag == "v2.0.0-rc.1"


def test_github_s_own_mark_of_a_pre_release_does_not_count(repo: Repo) -> None:
    repo.publish("v1.0.0", prerelease=True)
    assert announced(ask(repo.open())).tag == "v1.0.0"


def test_drafts_do_not_count(repo: Repo) -> None:
    """R8."""
    repo.publish("v1.0.0")
    repo.publish("v2.0.0", draft=True)
    assert announced(ask(repo.open())).tag == "v1.0.0"
    repo.publish("v2.0.0", draft=None)  # an answer without the field, as some appliances give
    assert announced(ask(repo.open())).tag == "v2.0.0"


def test_a_named_artifact(repo: Repo) -> None:
    repo.publish("v1.0.0", {NAME: b"data", "config.tar": b"config"})
    assert announced(ask(repo.open("?artifact=config.tar"))).name == "config.tar"
    assert announced(ask(repo.open(GITHUB_ARTIFACT="config.tar"))).name == "config.tar"
    assert announced(ask(repo.open(f"?artifact={NAME}", GITHUB_ARTIFACT="config.tar"))).name == NAME
    with pytest.raises(ArtifactNotFound, match=r"^artifact not found: other\.tar \(release v1\.0\.0, published 20"):
        ask(repo.open("?artifact=other.tar"))


def test_each_machine_gets_its_own(repo: Repo) -> None:
    names = ["a_linux_amd64.tgz", "a_linux_arm64.tgz", "a_darwin_arm64.zip", "a_linux_amd64.tgz.sha256", "sources.zip"]
    repo.publish("v1.0.0", {name: name.encode() for name in names})
    for platform, name in [
        (LINUX, "a_linux_amd64.tgz"),
        (Platform("linux", "arm64", "gnu"), "a_linux_arm64.tgz"),
        (Platform("darwin", "arm64"), "a_darwin_arm64.zip"),
    ]:
        assert announced(ask(repo.open(platform=platform))).name == name
    with pytest.raises(ArtifactNotFound):
        ask(repo.open(platform=Platform("freebsd", "amd64")))


def test_calendar_versions_and_slots(repo: Repo) -> None:
    repo.publish("2026.9.0+blue")
    repo.publish("2026.10.0+green")
    found = announced(ask(repo.open("?calver=YYYY.MM.MICRO")))
    assert (found.tag, found.slot) == ("2026.10.0+green", "green")


def test_a_half_uploaded_asset_is_not_there_yet(repo: Repo) -> None:
    """R3."""
    repo.publish("v1.0.0")
    registry = repo.open()
    last = ask(registry)
    repo.publish("v2.0.0", {}, published_at="2026-05-01T00:00:00Z")
    repo.server.add_asset("v2.0.0", NAME, b"hal", repo=repo.name, state="starter")
    pending = ask(registry, last)
    assert pending.value == last.value
    assert Pending.from_extra(pending.extra) == Pending(
        "v2.0.0",
        "artifact not found: none for this platform (release v2.0.0, published 2026-05-01T00:00:00Z)",
        datetime(2026, 5, 1, tzinfo=UTC),
    )
    assert ask(registry, pending) is NOT_MODIFIED  # to wait for it costs nothing
    repo.server.add_asset("v2.0.0", NAME, b"whole", repo=repo.name)
    assert announced(ask(registry, pending)).tag == "v2.0.0"


def test_one_release_is_not_announced_with_another_file(repo: Repo) -> None:
    repo.publish("v1.0.0", {"b_linux_amd64.tar.zst": b"b"})
    registry = repo.open()
    last = ask(registry)
    repo.publish("v1.0.0", {"a_linux_amd64.tar.gz": b"a"}, name="renamed")
    assert announced(ask(registry)).name == "a_linux_amd64.tar.gz"  # who knows nothing takes the better one
    again = ask(registry, last)
    assert announced(again).name == "b_linux_amd64.tar.zst"
    repo.server.remove_asset("v1.0.0", "b_linux_amd64.tar.zst", repo=repo.name)
    assert announced(ask(registry, again)).name == "a_linux_amd64.tar.gz"


def test_a_repository_without_releases(repo: Repo) -> None:
    repo.publish("v1.0.0")
    repo.server.withdraw("v1.0.0", repo=repo.name)
    with pytest.raises(UpstreamError, match=r"^no non-draft releases found$"):
        ask(repo.open())
    repo.publish("nightly")
    with pytest.raises(UpstreamError, match="failed to find latest version: no valid versioned object found"):
        ask(repo.open())


# -- pages and revalidation -------------------------------------------------------------------------------------------


def test_all_pages_are_read(repo: Repo) -> None:
    repo.server.configure(page_size=3)
    repo.publish("v9.0.0")
    for minor in range(7):
        repo.publish(f"v1.{minor}.0", {})
    loaded = ask(repo.open())
    assert announced(loaded).tag == "v9.0.0"
    assert [call["query"] for call in repo.polls()] == [f"per_page=100&page={n}" for n in (1, 2, 3)]


def test_a_poll_without_news_costs_nothing(repo: Repo) -> None:
    """R5."""
    repo.server.configure(page_size=2)
    for minor in range(5):
        repo.publish(f"v1.{minor}.0")
    registry = repo.open()
    last = ask(registry)
    before = repo.server.remaining("ghp_secret")
    for _ in range(10):
        assert ask(registry, last) is NOT_MODIFIED
    assert repo.server.remaining("ghp_secret") == before
    assert [call["status"] for call in repo.polls()] == [200] * 3 + [304] * 30


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_change_on_any_page_is_noticed(repo: Repo, page: int) -> None:
    repo.server.configure(page_size=2)
    for minor in range(6):
        repo.publish(f"v1.{minor}.0")
    registry = repo.open()
    last = ask(registry)
    tag = f"v1.{6 - 2 * page}.0"
    repo.publish(tag, {"note_linux_amd64.zip": b"more"})
    since = len(repo.polls())
    loaded = ask(registry, last)
    assert loaded is not NOT_MODIFIED
    assert announced(loaded).tag == "v1.5.0"
    assert ask(registry, loaded) is NOT_MODIFIED
    statuses = [call["status"] for call in repo.polls()[since:]]
    read_again = [200] * 2 if page == 1 else [200] * 3  # what came with the first page is not asked for again
    assert statuses == [304] * (page - 1) + [200] + read_again + [304] * 3


def test_another_node_revalidates_with_the_validator_of_the_first(repo: Repo) -> None:
    repo.publish("v1.0.0")
    last = ask(repo.open())
    assert ask(repo.open(), last) is NOT_MODIFIED
    # GitHub's ETags are good for one token alone; a node with another one gets the whole answer.
    assert announced(ask(repo.open(GH_TOKEN="ghp_other"), last)).tag == "v1.0.0"


@pytest.mark.parametrize(
    "validator",
    [
        None,
        "W/x",
        {"form": 0, "pages": [["per_page=100&page=1", 'W/"x"']]},
        {"form": 1, "pages": []},
        {"form": 1, "pages": "x"},
        {"form": 1, "pages": [["per_page=100&page=1"]]},
        {"form": 1, "pages": [["per_page=100&page=1", 'W/"x"\r\nX-Evil: 1']]},
        {"form": 1, "pages": [["per_page=100&page=2", 'W/"x"']]},
        {"form": 1, "pages": [["per_page=100&page=1", 'W/"x"'], ["../../../user", 'W/"y"']]},
    ],
)
def test_a_validator_that_is_none_is_not_used(repo: Repo, validator: Any) -> None:
    """It comes out of a store to which others write."""
    repo.publish("v1.0.0")
    registry = repo.open()
    last = replace(ask(registry), validator=validator)
    assert announced(ask(registry, last)).tag == "v1.0.0"
    assert not any(call["conditional"] for call in repo.polls())
    assert {call["path"] for call in repo.calls()} == {f"/repos/{repo.name}/releases"}


def test_without_a_previous_answer_nothing_is_revalidated(repo: Repo) -> None:
    repo.publish("v1.0.0")
    registry = repo.open()
    last = replace(ask(registry), value="nonsense")
    assert announced(ask(registry, last)).tag == "v1.0.0"


# -- failures ---------------------------------------------------------------------------------------------------------


def failure(registry: GitHubReleases, seconds: float = 20.0) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        registry.current(context(seconds=seconds))
    assert "ghp_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_rate_limits_say_when_to_come_back(repo: Repo) -> None:
    repo.publish("v1.0.0")
    registry = repo.open()
    repo.server.mode("rate-limited", reset_in=900)
    error = failure(registry)
    assert error.retry_after is not None
    assert 898 <= error.retry_after <= 902
    assert not error.authoritative
    for as_date in (False, True):
        repo.server.mode("secondary", retry_after=42, as_date=as_date, status=429)
        error = failure(registry)
        assert error.retry_after is not None
        assert 40 <= error.retry_after <= 42


def test_a_used_up_limit_of_our_own(repo: Repo) -> None:
    repo.publish("v1.0.0")
    repo.server.set_limit(2, "ghp_few")
    registry = repo.open(GH_TOKEN="ghp_few")
    ask(registry)
    ask(registry)
    error = failure(registry)
    assert error.retry_after is not None
    assert 3500 < error.retry_after <= 3602


@pytest.mark.parametrize(("status", "final"), [(401, True), (403, True), (404, True), (410, True), (500, False)])
def test_which_failures_are_final(repo: Repo, status: int, final: bool) -> None:
    repo.publish("v1.0.0")
    repo.server.mode("status", status=status, message="no")
    error = failure(repo.open())
    assert (error.authoritative, error.retry_after) == (final, None)
    assert str(status) in str(error)


def test_one_failure_is_one_call(repo: Repo) -> None:
    repo.publish("v1.0.0")
    registry = repo.open()
    for mode in ("outage", "drop", "cut"):
        repo.server.mode(mode, times=1)  # type: ignore[arg-type]  # a Mode
        assert not failure(registry).authoritative
    assert len(repo.polls()) == 3
    assert announced(ask(registry)).tag == "v1.0.0"


@pytest.mark.parametrize("mode", ["hang", "slow", "drip", "drip-headers"])
def test_a_call_ends_at_its_deadline(repo: Repo, mode: Any) -> None:
    repo.publish("v1.0.0")
    repo.server.mode(mode, delay=5.0 if mode == "slow" else 0.2)
    began = time.monotonic()
    error = failure(repo.open(), seconds=0.6)
    assert time.monotonic() - began < 4.5
    assert not error.authoritative


def test_a_server_that_is_not_there(repo: Repo) -> None:
    repo.publish("v1.0.0")
    registry = repo.open()
    ask(registry)
    repo.server.stop()
    try:
        assert "no connection" in str(failure(registry)) or "broke" in str(failure(registry))
    finally:
        repo.server.start()
    assert announced(ask(registry)).tag == "v1.0.0"


def test_what_is_no_github(repo: Repo) -> None:
    repo.publish("v1.0.0")
    registry = repo.open()
    repo.server.mode("status", status=200, message="hello")
    assert "expected a list of releases; is GITHUB_API_URL right?" in str(failure(registry))
    repo.server.mode("corrupt")
    with pytest.raises(UpstreamError):
        ask(registry)


def test_a_private_repository(repo: Repo) -> None:
    repo.publish("v1.0.0")
    repo.server.configure(private=True, tokens=["ghp_secret"])
    assert announced(ask(repo.open())).tag == "v1.0.0"
    assert failure(repo.open(GH_TOKEN="")).authoritative
    error = failure(repo.open(GH_TOKEN="ghp_wrong"))
    assert error.authoritative
    assert "the token is not valid; Bad credentials" in str(error)
    assert "ghp_wrong" not in str(error)


def test_anonymous_use(repo: Repo, tmp_path: Path) -> None:
    repo.publish("v1.0.0")
    registry = repo.open(GH_TOKEN="")
    found = announced(ask(registry))
    registry.fetch(found, tmp_path / "out")
    registry.report(found, "server")  # nobody may; so it does not try
    assert not any(call["authorization"] for call in repo.calls())
    assert repo.calls(method="POST") == []


def test_through_a_shared_cache_an_outage_costs_one_call(repo: Repo) -> None:
    """Two nodes, one store: what one learns the other knows."""
    repo.publish("v1.0.0")
    with open_store(f"memory://{repo.name.replace('/', '-')}") as store:
        caches = [SharedCache(store, ttl=0.2, refresh_ahead=0.0) for _ in range(2)]
        registries = [repo.open() for _ in range(2)]
        for cache, registry in zip(caches, registries, strict=True):
            assert cache.get("key", registry.current).value["Tag"] == "v1.0.0"
        assert len(repo.polls()) == 1
        repo.server.mode("rate-limited", reset_in=600)
        time.sleep(0.3)
        for _ in range(3):
            for cache, registry in zip(caches, registries, strict=True):
                result = cache.get("key", registry.current)
                assert result.value["Tag"] == "v1.0.0"
        assert len(repo.polls()) == 2


def test_a_final_failure_is_not_papered_over(repo: Repo) -> None:
    repo.publish("v1.0.0")
    with open_store(f"memory://final-{repo.name.replace('/', '-')}") as store:
        cache, registry = SharedCache(store, ttl=0.1), repo.open()
        cache.get("key", registry.current)
        repo.server.mode("status", status=404)
        time.sleep(0.3)
        with pytest.raises(UpstreamUnavailable) as caught:
            for _ in range(20):  # the first may still be served as stale while its refresh runs
                cache.get("key", registry.current)
                time.sleep(0.1)
        assert caught.value.authoritative
