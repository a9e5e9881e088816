"""Eight processes on one store of the network kind: one winner, no lost update, no torn value."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from kvcache.backends.parted import PartedStore
from kvcache.url import open_store
from tests.stores import racers
from tests.stores.racers import PROCESSES

SIZE = 1_200_000
"""Bytes of a large value: two parts in Redis, three in Consul."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with racers.eight_processes("redis") as pool:
        yield pool


@pytest.fixture(params=["redis", "valkey", "redis_cluster", "consul"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param).store_url(prefix=f"race-{uuid.uuid4().hex[:8]}/")


def test_exactly_one_process_creates_a_key(url: str, pool: ProcessPoolExecutor) -> None:
    keys = [f"key/{n}" for n in range(20)]
    running = [pool.submit(racers.create, url, f"process {n}", keys) for n in range(PROCESSES)]
    won = {f"process {n}": future.result() for n, future in enumerate(running)}
    assert sorted(key for keys_won in won.values() for key in keys_won) == sorted(keys)
    with open_store(url) as store:
        for name, keys_won in won.items():
            assert all(store.read(key) == name.encode() for key in keys_won)


def test_no_increment_is_lost(url: str, pool: ProcessPoolExecutor) -> None:
    running = [pool.submit(racers.increment, url, "counter", 15) for _ in range(PROCESSES)]
    refused = sum(future.result() for future in running)
    with open_store(url) as store:
        assert int(store.read("counter")) == PROCESSES * 15
    assert refused > 0, "the processes never met, so this proves nothing"


def test_a_large_value_is_never_torn(url: str, pool: ProcessPoolExecutor) -> None:
    with open_store(url) as store:
        store.write("large", racers.large_value("first", SIZE))
        running = [pool.submit(racers.replace_large, url, "large", f"writer {n}", SIZE, 6) for n in range(3)] + [
            pool.submit(racers.read_large, url, "large", SIZE, 15) for n in range(PROCESSES - 3)
        ]
        results = [future.result() for future in running]
        assert max(results) > 1, "nobody saw a change, so this proves nothing"
        assert isinstance(store, PartedStore)
        left = list(store._shelf.names(".parts/"))
        assert {name.split("/")[2] for name in left} == {store.stat("large").version.token.split("@")[1].split("*")[0]}
