"""Eight processes that want one answer at once: one call of the upstream, on every store that a fleet may share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

import kvcache
from tests.stores import racers
from tests.stores.racers import PROCESSES
from tests.stores.rig import bucket_of


class Place(NamedTuple):
    """A store, and what has to be in the environment of who opens it."""

    url: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    backends = (f"kvcache.backends.{name}" for name in ("redis", "consul", "s3", "gs", "azure", "file"))
    with racers.eight_processes("kvcache.cache", *backends) as pool:
        yield pool


@pytest.fixture(params=["file_flock", "redis", "valkey", "redis_cluster", "consul", "seaweedfs", "fake_gcs", "azurite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    name, fresh = request.param, f"flight-{uuid.uuid4().hex[:8]}/"
    if name == "file_flock":
        return Place(f"file://{tmp_path}/{fresh}?locking=flock", {})
    server = request.getfixturevalue(name)
    if name in ("redis", "valkey", "redis_cluster", "consul"):
        return Place(server.store_url(prefix=fresh), {})
    for variable, value in server.env.items():
        monkeypatch.setenv(variable, value)
    url = server.store_url(bucket_of(server), fresh)
    # Eight examinations of a service at the start are nothing to this test.
    return Place(f"{url}{'&' if '?' in url else '?'}check=off", dict(server.env))


def ask(place: Place, pool: ProcessPoolExecutor, key: str, calls: Path, *, fails: bool = False) -> set[str]:
    """What all eight got; each has nothing in hand."""
    running = [pool.submit(racers.answers, place.url, place.env, key, calls, fails) for _ in range(PROCESSES)]
    got = [future.result(240) for future in running]
    assert len({process for process, _ in got}) == PROCESSES
    return {answer for _, answer in got}


def test_one_call_for_all(place: Place, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    (first,) = ask(place, pool, "key", calls)
    assert calls.read_text().splitlines() == ["None"]

    with kvcache.open_store(place.url) as store:
        cache = kvcache.SharedCache(store, ttl=3600)
        cache.invalidate("key")
        got = ask(place, pool, "key", calls)
        # The leader was handed the answer of the round before, which those who did not lead were given meanwhile.
        assert calls.read_text().splitlines() == ["None", first]
        second = cache.get("key", lambda ctx: "a call too many").value
        assert second.startswith("of process")
        assert {second} <= got <= {first, second}


@pytest.mark.parametrize("place", ["file_flock", "redis", "consul"], indirect=True)
def test_one_failed_call_for_all(place: Place, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    assert ask(place, pool, "key", calls, fails=True) == {"rate-limited 1"}
    assert calls.read_text() == "None\n"
