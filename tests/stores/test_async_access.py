"""Redis and Consul for asyncio: the same answers, and nobody who waits keeps anybody from writing."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
import uvloop

import kvcache
from kvcache.backends.parted_async import REQUESTS, WAITS, PartedAccess
from kvcache.backends.redis_async import RedisAccess
from kvcache.errors import Conflict, InvalidKey, NotFound, StoreUnavailable
from kvcache.kvs import ABSENT, Store
from kvcache.url import open_store

LARGE = b"0123456789abcdef" * 80_000


@pytest.fixture(params=["redis", "redis_cluster", "consul"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    server = request.getfixturevalue(request.param)
    with open_store(server.store_url(prefix=f"a{uuid.uuid4().hex[:8]}/")) as store:
        yield store


@pytest.fixture
def consul_store(consul) -> Iterator[Store]:
    with open_store(consul.store_url(prefix=f"a{uuid.uuid4().hex[:8]}")) as store:
        yield store


def waiting_threads() -> int:
    return sum(thread.name == "kvcache-wait" for thread in threading.enumerate())


def test_it_is_the_same_store(store: Store) -> None:
    async def use() -> None:
        access = store.native_async()
        assert access is not None
        with pytest.raises(NotFound):
            await access.read_versioned("key")
        version = await access.write_if("key", LARGE, ABSENT)
        assert (await access.read_versioned("key")).version == version
        with pytest.raises(Conflict):
            await access.write_if("key", b"", ABSENT)
        with pytest.raises(InvalidKey):
            await access.wait_for_change("../key", None, 1.0)
        assert await access.wait_for_change("key", version, 0.2) is False
        assert await access.wait_for_change("key", None, 30.0)
        await access.write_if("key", b"small", version)
        assert await access.wait_for_change("key", version, 30.0)

    asyncio.run(use())
    uvloop.run(_again(store))
    assert store.read("key") == b"again"


async def _again(store: Store) -> None:
    access = store.native_async()
    assert access is not None
    stored = await access.read_versioned("key")
    await access.write_if("key", b"again", stored.version)
    assert await access.wait_for_change("key", stored.version, 30.0)


def test_those_who_wait_keep_nobody_from_writing(store: Store) -> None:
    """More followers than there are threads for requests, all waiting for a leader in the same process."""
    keys = [f"key{n}" for n in range(3 * REQUESTS)]

    async def use() -> None:
        access = store.native_async()
        assert access is not None
        versions = {key: await access.write_if(key, b"claim", ABSENT) for key in keys}
        waiting = [asyncio.create_task(access.wait_for_change(key, versions[key], 60.0)) for key in keys]
        await asyncio.sleep(1.0)  # by now they have all looked once, and wait to be told
        began = time.monotonic()
        for key in keys:
            await access.write_if(key, b"answer", versions[key])
        assert await asyncio.gather(*waiting) == [True] * len(keys)
        assert time.monotonic() - began < 4  # Redis' followers would look for themselves after 5 s

    asyncio.run(use())


def test_waiting_for_redis_costs_no_thread(redis) -> None:
    async def use(store: Store) -> None:
        access = store.native_async()
        assert isinstance(access, RedisAccess)
        waiting = [asyncio.create_task(access.wait_for_change(f"key{n}", None, 1.0)) for n in range(50)]
        await asyncio.sleep(0.3)
        assert waiting_threads() == 0
        assert await asyncio.gather(*waiting) == [False] * 50

    with open_store(redis.store_url(prefix=f"a{uuid.uuid4().hex[:8]}/")) as store:
        asyncio.run(use(store))


def test_who_finds_too_many_waiting_is_told_to_poll(consul_store: Store) -> None:
    async def use() -> None:
        access = consul_store.native_async()
        assert type(access) is PartedAccess
        waiting = [asyncio.create_task(access.wait_for_change(f"key{n}", None, 1.0)) for n in range(WAITS)]
        await asyncio.sleep(0.2)
        with pytest.raises(StoreUnavailable, match="wait for changes already"):
            await access.wait_for_change("one more", None, 1.0)
        await asyncio.gather(*waiting)
        assert await access.wait_for_change("one more", None, 0.1) is False

    asyncio.run(use())


@pytest.mark.filterwarnings("error")
def test_a_wait_that_is_cancelled_harms_nobody(store: Store) -> None:
    async def use() -> None:
        access = store.native_async()
        assert access is not None
        version = await access.write_if("key", b"1", ABSENT)
        first, second = (asyncio.create_task(access.wait_for_change("key", version, 20.0)) for _ in range(2))
        await asyncio.sleep(0.2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await access.write_if("key", b"2", version)
        assert await asyncio.wait_for(second, 10.0)

    asyncio.run(use())
    while waiting_threads():
        time.sleep(0.02)


def test_one_load_for_many_tasks_of_two_caches(store: Store) -> None:
    """Two nodes' worth of followers on twenty keys; each key is loaded once."""
    loads: list[str] = []

    async def use() -> None:
        one, two = (kvcache.AsyncSharedCache(store, ttl=60.0) for _ in range(2))

        async def get(cache: kvcache.AsyncSharedCache, key: str) -> object:
            async def load(_: object) -> str:
                loads.append(key)
                await asyncio.sleep(0.3)
                return key

            return (await cache.get(key, load)).value

        keys = [f"key{n}" for n in range(20)]
        values = await asyncio.gather(*(get(cache, key) for key in keys for cache in (one, two, one)))
        assert values == [key for key in keys for _ in range(3)]
        assert sorted(loads) == sorted(keys)
        await one.aclose()
        await two.aclose()

    asyncio.run(use())
