"""Waiting for a change in Redis: told by pub/sub, and by looking where that fails."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from kvcache.kvs import Store
from kvcache.url import open_store
from tests import servers
from tests.proxy import DropRequest, Fault, TcpProxy


@pytest.fixture
def prefix() -> str:
    return f"w{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def proxy(redis: servers.Redis) -> Iterator[TcpProxy]:
    with TcpProxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def direct(redis: servers.Redis, prefix: str) -> Iterator[Store]:
    with open_store(redis.store_url(prefix)) as store:
        yield store


@pytest.mark.parametrize("server", ["redis", "redis_cluster"])
def test_changes_wake_a_follower_quickly(request: pytest.FixtureRequest, server: str, prefix: str) -> None:
    url = request.getfixturevalue(server).store_url(prefix)
    with open_store(url) as leader, open_store(url) as follower:
        version = leader.write("key", b"0")
        follower.wait_for_change("key", version, 0.3)  # it is connected now
        delays = []
        for n in range(20):
            published: list[float] = []

            def publish(n: int = n, published: list[float] = published) -> None:
                published.append(time.monotonic())
                leader.write("key", b"%d" % n)

            timer = threading.Timer(0.1, publish)
            timer.start()
            assert follower.wait_for_change("key", version, 10.0)
            delays.append(time.monotonic() - published[0])
            timer.join()
            version = leader.stat("key").version
        assert sorted(delays)[10] < 0.25, delays  # far below what polling would give


def test_a_deletion_is_a_change(redis: servers.Redis, direct: Store) -> None:
    version = direct.write("key", b"1")
    threading.Timer(0.2, direct.delete, ["key"]).start()
    began = time.monotonic()
    assert direct.wait_for_change("key", version, 20.0)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("silent", [False, True])
def test_a_follower_that_is_cut_off_polls(
    redis: servers.Redis, proxy: TcpProxy, direct: Store, prefix: str, silent: bool
) -> None:
    """The subscription is lost and can't be made again; everything else works."""
    version = direct.write("key", b"1")
    proxy.plan = [Fault(DropRequest(silent), path=r"SUBSCRIBE")]
    with open_store(redis.store_url(prefix, port=proxy.port)) as store:
        threading.Timer(0.3, direct.write, ["key", b"2"]).start()
        began = time.monotonic()
        assert store.wait_for_change("key", version, 30.0)
        assert time.monotonic() - began < 3


def test_a_subscription_that_was_lost_comes_back(
    redis: servers.Redis, proxy: TcpProxy, direct: Store, prefix: str
) -> None:
    """In the middle of one wait."""
    version = direct.write("key", b"1")
    results: list[bool] = []
    with open_store(redis.store_url(prefix, port=proxy.port)) as store, redis.client() as client:

        def await_subscribers(count: int) -> None:
            deadline = time.monotonic() + 10
            while client.pubsub_numsub(f"kvcache:0:{prefix}key")[0][1] != count:
                assert time.monotonic() < deadline, f"never {count}"
                time.sleep(0.02)

        waiter = threading.Thread(target=lambda: results.append(store.wait_for_change("key", version, 60.0)))
        waiter.start()
        await_subscribers(1)
        with proxy.outage():
            await_subscribers(0)
        await_subscribers(1)
        direct.write("key", b"2")
        waiter.join(10)
    assert results == [True]


def test_many_who_wait_share_one_connection(redis: servers.Redis, prefix: str) -> None:
    with open_store(redis.store_url(prefix)) as store, redis.client() as client:
        versions = {f"key{n}": store.write(f"key{n}", b"") for n in range(20)}
        woken: list[str] = []

        def wait(key: str) -> None:
            if store.wait_for_change(key, versions[key], 30.0):
                woken.append(key)

        threads = [threading.Thread(target=wait, args=(key,)) for key in versions]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(client.pubsub_channels(f"kvcache:0:{prefix}*")) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        subscribers = [c for c in client.client_list(_type="pubsub") if int(c["sub"]) > 0]
        assert [int(c["sub"]) for c in subscribers if int(c["sub"]) >= 20] == [20], subscribers
        for key in versions:
            store.write(key, b"new")
        for thread in threads:
            thread.join()
        assert sorted(woken) == sorted(versions)


def test_closing_ends_the_thread(redis: servers.Redis, prefix: str) -> None:
    store = open_store(redis.store_url(prefix))
    store.wait_for_change("key", None, 0.2)
    assert [thread for thread in threading.enumerate() if thread.name == "kvcache-redis-watch"]
    store.close()
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "kvcache-redis-watch"]
