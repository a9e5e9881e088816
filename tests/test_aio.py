"""AsyncSharedCache: the same stories as for threads, and what only asyncio has: cancellation."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import uvloop

import kvcache
from kvcache import events as ev
from kvcache.backends.memory import MemoryStore
from kvcache.codec import decode, encode
from kvcache.record import Lock, Record
from tests.test_cache import Watched


@pytest.fixture
def store():
    return Watched()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    return asyncio.run if request.param == "asyncio" else uvloop.run


class Upstream:
    def __init__(self, takes: float = 0.0) -> None:
        self.calls = 0
        self.takes = takes
        self.failure: Exception | None = None
        self.called = asyncio.Event()

    async def load(self, ctx):
        self.calls += 1
        self.called.set()
        number = self.calls
        await asyncio.sleep(self.takes)
        if self.failure is not None:
            raise self.failure
        return kvcache.Loaded(number, validator=f"etag-{number}")


def test_a_thousand_tasks_share_one_load_and_no_request(run, store):
    async def story():
        cache, upstream = kvcache.AsyncSharedCache(store, ttl=60), Upstream(takes=0.1)
        results = await asyncio.gather(*(cache.get("k", upstream.load) for _ in range(1000)))
        assert {r.value for r in results} == {1}
        assert sum(r.refreshed for r in results) == 1
        asked = dict(store.asked)
        assert (await cache.get("k", upstream.load)).value == 1
        assert dict(store.asked) == asked == {"read": 1, "write": 2}
        assert upstream.calls == 1

    run(story())


def test_no_thread_is_used_for_memory(run, store):
    async def story():
        before = threading.active_count()
        cache = kvcache.AsyncSharedCache(store, ttl=60)
        for n in range(50):
            await cache.get(f"k{n}", Upstream().load)
        assert threading.active_count() == before

    run(story())


def test_plain_loads_run_beside_the_loop(run, store):
    async def story():
        def load(ctx):
            time.sleep(0.3)
            return threading.current_thread() is threading.main_thread()

        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        assert (await kvcache.AsyncSharedCache(store, ttl=60).get("k", load)).value is False
        ticking.cancel()
        assert ticks > 3

    run(story())


def test_cancelling_whoever_came_first_harms_nobody(run, store):
    async def story():
        cache, upstream = kvcache.AsyncSharedCache(store, ttl=60), Upstream(takes=0.3)
        first = asyncio.create_task(cache.get("k", upstream.load))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(cache.get("k", upstream.load))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).value == 1
        assert upstream.calls == 1
        with pytest.raises(kvcache.UpstreamUnavailable, match="no answer within"):
            await cache.get("other", upstream.load, timeout=0.05)
        assert (await cache.get("other", upstream.load)).value == 2

    run(story())


def test_threads_and_tasks_share_records(run, store):
    kvcache.SharedCache(store, ttl=60).get("k", lambda ctx: "from a thread")

    async def story():
        return await kvcache.AsyncSharedCache(store, ttl=60).get("k", Upstream().load)

    assert run(story()).value == "from a thread"


def test_stale_failures_validators_and_renewal(run, store):
    async def story():
        events: list[ev.Event] = []
        one = kvcache.AsyncSharedCache(store, ttl=0.2, lease=0.3, on_event=events.append)
        two = kvcache.AsyncSharedCache(store, ttl=0.2, lease=0.3)
        await one.get("k", Upstream().load)
        await two.get("k", Upstream().load)
        await asyncio.sleep(0.3)
        slow = Upstream(takes=1.0)
        slow.calls = 10
        leading = asyncio.create_task(one.get("k", slow.load))
        await asyncio.wait_for(slow.called.wait(), 10)
        stale = await two.get("k", slow.load)
        assert (stale.value, stale.state) == (1, "stale")
        assert (await leading).value == 11
        assert any(isinstance(event, ev.LeaseRenewed) for event in events)
        await asyncio.sleep(0.3)
        slow.failure, slow.takes = kvcache.UpstreamError("503", retry_after=60), 0.0
        for cache in (one, two, one):
            failed = await cache.get("k", slow.load)
            assert (failed.value, failed.state) == (11, "stale-on-error")
        assert slow.calls == 12
        await one.aclose()

    run(story())


def test_a_hung_load_is_cancelled(run, store):
    async def story():
        ended = []

        async def hangs(ctx):
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        cache = kvcache.AsyncSharedCache(store, ttl=60, lease=0.2, load_timeout=0.3)
        with pytest.raises(kvcache.UpstreamUnavailable, match="did not answer within"):
            await cache.get("k", hangs)
        await asyncio.sleep(0.05)
        assert ended

    run(story())


@pytest.mark.parametrize("standing_still", [2, 3, 4])
def test_a_hung_load_is_cancelled_though_the_deadline_passed_during_a_renewal(run, standing_still):
    class Slow(MemoryStore):
        writes = 0

        def put(self, key, data, condition):
            self.writes += 1
            if self.writes == standing_still:
                time.sleep(0.5)
            return super().put(key, data, condition)

    async def story():
        ended = asyncio.Event()

        async def hangs(ctx):
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        cache = kvcache.AsyncSharedCache(Slow(), ttl=60, lease=0.2, load_timeout=0.3)
        with pytest.raises(kvcache.UpstreamUnavailable, match="did not answer within"):
            await cache.get("k", hangs)
        await asyncio.wait_for(ended.wait(), 20)

    run(story())


def test_waiting_for_another_process(run, store):
    async def story():
        store.write("k", encode(Record("dead", None, Lock(time.time(), "host:1", 0.5))))
        assert (await kvcache.AsyncSharedCache(store, ttl=60, lease=0.5).get("k", Upstream().load)).value == 1

    run(story())


def test_peek_invalidate_and_a_store_that_is_down(run, store):
    async def story():
        cache, upstream = kvcache.AsyncSharedCache(store, ttl=60), Upstream()
        assert await cache.peek("k") is None
        await cache.get("k", upstream.load)
        await cache.invalidate("k")
        assert (await cache.get("k", upstream.load)).value == 2
        store.cut = True
        await asyncio.sleep(0)
        assert (await cache.get("k", upstream.load)).value == 2
        with pytest.raises(kvcache.StoreUnavailable):
            await cache.peek("other")

    run(story())


def test_a_loop_that_ends_leaves_no_one_waiting(store):
    async def story():
        cache = kvcache.AsyncSharedCache(store, ttl=60)
        asyncio.get_running_loop().create_task(cache.get("k", Upstream(takes=60).load))
        await asyncio.sleep(0.1)

    asyncio.run(story())
    assert decode(store.read("k")).lock is not None  # the lease decides
