"""SharedCache over a real store: what callers see, what the store is asked, how often the upstream is called."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import pytest

import kvcache
from kvcache import events as ev
from kvcache.backends.memory import MemoryStore
from kvcache.codec import decode, encode
from kvcache.record import Answer, Lock, Record


class Watched(MemoryStore):
    """A memory store that counts what it is asked, and can be cut off."""

    def __init__(self) -> None:
        super().__init__(2**26)
        self.asked: Counter[str] = Counter()
        self.cut = False

    def read_versioned(self, key):
        self._ask("read")
        return super().read_versioned(key)

    def put(self, key, data, condition):
        self._ask("write")
        return super().put(key, data, condition)

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.cut:
            raise kvcache.StoreUnavailable("the cable is cut")


@pytest.fixture
def store():
    return Watched()


class Upstream:
    """Counts its calls; answers with their number."""

    def __init__(self, takes: float = 0.0) -> None:
        self.calls = 0
        self.takes = takes
        self.failure: Exception | None = None
        self.contexts: list[kvcache.LoadContext] = []
        self._lock = threading.Lock()

    def __call__(self, ctx):
        with self._lock:
            self.calls += 1
            self.contexts.append(ctx)
            number = self.calls
        time.sleep(self.takes)
        if self.failure is not None:
            raise self.failure
        return kvcache.Loaded(number, validator=f"etag-{number}", extra={"n": number})


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_a_fresh_answer_in_hand_costs_no_request(store):
    cache, upstream = kvcache.SharedCache(store, ttl=60), Upstream()
    first = cache.get("k", upstream)
    assert (first.value, first.state, first.refreshed, first.extra) == (1, "fresh", True, {"n": 1})
    asked = dict(store.asked)
    for _ in range(1000):
        again = cache.get("k", upstream)
        assert (again.value, again.state, again.refreshed) == (1, "fresh", False)
    assert dict(store.asked) == asked == {"read": 1, "write": 2}
    assert upstream.calls == 1


def test_another_node_reads_once(store):
    upstream = Upstream()
    kvcache.SharedCache(store, ttl=60).get("k", upstream)
    store.asked.clear()
    other = kvcache.SharedCache(store, ttl=60)
    assert [other.get("k", upstream).value for _ in range(10)] == [1] * 10
    assert dict(store.asked) == {"read": 1}
    assert upstream.calls == 1


def test_threads_share_one_flight(store):
    cache, upstream = kvcache.SharedCache(store, ttl=60), Upstream(takes=0.2)
    results: list[kvcache.Result] = []
    threads = [threading.Thread(target=lambda: results.append(cache.get("k", upstream))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.value for r in results] == [1] * 100
    assert sum(r.refreshed for r in results) == 1
    assert upstream.calls == 1


def test_nodes_wait_for_the_first_answer(store):
    upstream = Upstream(takes=0.3)
    caches = [kvcache.SharedCache(store, ttl=60) for _ in range(20)]
    results: list[kvcache.Result] = []
    threads = [threading.Thread(target=lambda c=c: results.append(c.get("k", upstream))) for c in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.value for r in results] == [1] * 20
    assert upstream.calls == 1


def test_stale_is_served_at_once_while_another_node_refreshes(store):
    quick, slow = Upstream(), Upstream(takes=1.0)
    one, two = kvcache.SharedCache(store, ttl=0.2), kvcache.SharedCache(store, ttl=0.2)
    one.get("k", quick)
    two.get("k", quick)
    time.sleep(0.3)
    leader = threading.Thread(target=one.get, args=("k", slow))
    leader.start()
    until(lambda: slow.calls == 1)
    before = time.monotonic()
    result = two.get("k", slow)
    assert time.monotonic() - before < 0.8
    assert (result.value, result.state) == (1, "stale")
    leader.join()
    assert slow.calls == 1


def test_who_comes_later_in_the_leaders_own_process_does_not_wait_either(store):
    quick, slow = Upstream(), Upstream(takes=1.0)
    cache = kvcache.SharedCache(store, ttl=0.2)
    cache.get("k", quick)
    time.sleep(0.3)
    leader = threading.Thread(target=cache.get, args=("k", slow))
    leader.start()
    until(lambda: slow.calls == 1)
    assert cache.get("k", slow).state == "stale"
    leader.join()


def test_background_gives_the_leader_its_stale_answer_at_once(store):
    cache = kvcache.SharedCache(store, ttl=0.1, background=True)
    cache.get("k", Upstream())
    time.sleep(0.2)
    slow = Upstream(takes=0.5)
    assert cache.get("k", slow).state == "stale"
    until(lambda: slow.calls == 1 and cache.get("k", slow).state == "fresh")


def test_a_failure_is_recorded_once_for_the_fleet(store):
    caches = [kvcache.SharedCache(store, ttl=0.2) for _ in range(5)]
    caches[0].get("k", Upstream())
    time.sleep(0.3)
    down = Upstream()
    down.failure = kvcache.UpstreamError("503 from https://user:secret@host/x?token=abc", retry_after=30)
    for cache in caches * 3:
        result = cache.get("k", down)
        assert (result.value, result.state) == (1, "stale-on-error")
    assert down.calls == 1
    record = decode(store.read("k"))
    assert record.failure is not None and record.failure.count == 1
    assert 30 <= record.failure.retry_at - record.failure.failed_at <= 33
    assert "secret" not in record.failure.message and "abc" not in record.failure.message


def test_without_an_answer_the_recorded_failure_is_raised(store):
    down = Upstream()
    down.failure = kvcache.UpstreamError("rate limited", retry_after=60)
    with pytest.raises(kvcache.UpstreamUnavailable) as first:
        kvcache.SharedCache(store, ttl=1).get("k", down)
    assert first.value.__cause__ is down.failure
    with pytest.raises(kvcache.UpstreamUnavailable) as second:
        kvcache.SharedCache(store, ttl=1).get("k", down)
    assert second.value.count == 1
    assert second.value.failure == "rate limited"
    assert 55 < second.value.retry_in <= 66
    assert down.calls == 1


def test_an_authoritative_failure_is_not_papered_over(store):
    cache = kvcache.SharedCache(store, ttl=0.1)
    cache.get("k", Upstream())
    time.sleep(0.2)
    gone = Upstream()
    gone.failure = kvcache.UpstreamError("404 no such repository", authoritative=True)
    with pytest.raises(kvcache.UpstreamUnavailable) as error:
        cache.get("k", gone)
    assert error.value.authoritative
    with pytest.raises(kvcache.UpstreamUnavailable):
        kvcache.SharedCache(store, ttl=0.1).get("k", gone)


def test_validators_go_from_leader_to_leader(store):
    kvcache.SharedCache(store, ttl=0.1).get("k", Upstream())
    time.sleep(0.2)
    seen: list[kvcache.LoadContext] = []

    def unchanged(ctx):
        seen.append(ctx)
        return kvcache.NOT_MODIFIED

    other = kvcache.SharedCache(store, ttl=0.1)
    result = other.get("k", unchanged)
    assert (result.value, result.state, result.refreshed, result.extra) == (1, "fresh", True, {"n": 1})
    assert (seen[0].previous, seen[0].validator, seen[0].extra) == (1, "etag-1", {"n": 1})
    assert seen[0].deadline > time.monotonic()


def test_a_slow_load_keeps_its_lease(store):
    slow = Upstream(takes=1.5)
    events: list[ev.Event] = []
    leader = kvcache.SharedCache(store, ttl=60, lease=0.4, on_event=events.append)
    thread = threading.Thread(target=leader.get, args=("k", slow))
    thread.start()
    until(lambda: slow.calls == 1)
    assert kvcache.SharedCache(store, ttl=60, lease=0.4).get("k", slow).value == 1
    thread.join()
    assert slow.calls == 1
    assert sum(isinstance(e, ev.LeaseRenewed) for e in events) >= 3
    assert any(isinstance(e, ev.Published) for e in events)


def test_a_dead_leader_is_replaced(store):
    store.write("k", encode(Record("dead", None, Lock(time.time(), "host:1", 0.5))))
    upstream = Upstream()
    before = time.monotonic()
    assert kvcache.SharedCache(store, ttl=60, lease=0.5).get("k", upstream).value == 1
    assert 0.4 < time.monotonic() - before < 5


def test_a_leader_that_was_taken_over_publishes_nothing(store):
    late, quick = Upstream(takes=1.0), Upstream()
    quick.calls = 100
    cache = kvcache.SharedCache(store, ttl=60, lease=60)
    results: list[kvcache.Result] = []
    thread = threading.Thread(target=lambda: results.append(cache.get("k", late)))
    thread.start()
    until(lambda: late.calls == 1)
    store.write("k", encode(Record("theirs", Answer(101, time.time() + 0.5))))
    thread.join()
    assert decode(store.read("k")).nonce == "theirs"
    assert results[0].value in (1, 101)


def test_a_hung_load_is_given_up_and_not_piled_up(store):
    release = threading.Event()
    calls = []

    def hangs(ctx):
        calls.append(ctx)
        release.wait(30)
        return 1

    cache = kvcache.SharedCache(store, ttl=0.05, lease=0.3, load_timeout=0.3)
    with pytest.raises(kvcache.UpstreamUnavailable, match="did not answer within"):
        cache.get("k", hangs)
    time.sleep(0.2)
    with pytest.raises(kvcache.UpstreamUnavailable, match="still running"):
        cache.get("k", hangs)
    assert len(calls) == 1
    release.set()


def test_one_callers_timeout_leaves_the_flight_alone(store):
    slow = Upstream(takes=0.5)
    cache = kvcache.SharedCache(store, ttl=60)
    with pytest.raises(kvcache.UpstreamUnavailable, match="no answer within"):
        cache.get("k", slow, timeout=0.05)
    assert cache.get("k", slow).value == 1
    assert slow.calls == 1


def test_unreadable_bytes_heal(store, caplog):
    store.write("k", b"\xff not a record")
    events: list[ev.Event] = []
    cache = kvcache.SharedCache(store, ttl=60, on_event=events.append)
    assert cache.get("k", Upstream()).value == 1
    assert decode(store.read("k")).answer is not None
    assert [type(e).__name__ for e in events] == [
        "RecordUnreadable",
        "Claimed",
        "RecordHealed",
        "UpstreamCalled",
        "Published",
    ]
    assert caplog.text.count("unreadable record under k") == 1


def test_a_value_that_the_store_itself_finds_damaged_heals(store):
    store.write("k", b"a part of it is missing")
    whole = store.read_versioned

    def damaged(key):
        if store.stat(key).size == 23:
            raise kvcache.CorruptRecord("part 3 is damaged")
        return whole(key)

    store.read_versioned = damaged
    assert kvcache.SharedCache(store, ttl=60).get("k", Upstream()).value == 1
    assert decode(store.read("k")).answer is not None


def test_peek_never_calls_nor_claims(store):
    cache = kvcache.SharedCache(store, ttl=0.1)
    assert cache.peek("k") is None
    assert store.asked["write"] == 0
    kvcache.SharedCache(store, ttl=0.1).get("k", Upstream())
    time.sleep(0.2)
    writes = store.asked["write"]
    assert cache.peek("k") == (1, pytest.approx(0.2, abs=5), "stale", False, {"n": 1})
    assert store.asked["write"] == writes


def test_invalidate_refreshes_and_keeps_the_fallback(store):
    cache, upstream = kvcache.SharedCache(store, ttl=60), Upstream()
    cache.get("k", upstream)
    cache.invalidate("k")
    assert cache.get("k", upstream).value == 2
    cache.invalidate("k")
    upstream.failure = RuntimeError("boom")
    result = cache.get("k", upstream)
    assert (result.value, result.state) == (2, "stale-on-error")
    cache.invalidate("never heard of")


def test_an_invalidation_during_a_load_is_not_forgotten(store):
    slow = Upstream(takes=0.4)
    cache = kvcache.SharedCache(store, ttl=60)
    thread = threading.Thread(target=cache.get, args=("k", slow))
    thread.start()
    until(lambda: slow.calls == 1)
    cache.invalidate("k")
    thread.join()
    assert cache.get("k", slow).value == 2


def test_when_the_store_is_down_the_last_answer_is_served(store):
    cache, upstream = kvcache.SharedCache(store, ttl=0.1), Upstream()
    cache.get("k", upstream)
    store.cut = True
    time.sleep(0.2)
    result = cache.get("k", upstream)
    assert (result.value, result.state) == (1, "stale-on-error")
    assert upstream.calls == 1
    store.cut = False
    until(lambda: cache.get("k", upstream).state == "fresh", 5)


def test_when_the_store_is_down_a_new_process_has_its_copy_on_disk(store, tmp_path):
    upstream = Upstream()
    kvcache.SharedCache(store, ttl=0.1, local_copy=tmp_path).get("k", upstream)
    store.cut = True
    time.sleep(0.2)
    result = kvcache.SharedCache(store, ttl=0.1, local_copy=tmp_path).get("k", upstream)
    assert (result.value, result.state) == (1, "stale-on-error")
    assert upstream.calls == 1


def test_a_copy_older_than_max_stale_is_not_served(store, tmp_path):
    kvcache.SharedCache(store, ttl=0.1, local_copy=tmp_path).get("k", Upstream())
    store.cut = True
    time.sleep(0.5)
    other = Upstream()
    other.calls = 10
    result = kvcache.SharedCache(store, ttl=0.1, max_stale=0.3, local_copy=tmp_path).get("k", other)
    assert result.value == 11


def test_when_the_store_is_down_the_upstream_is_called_once_per_ttl(store):
    store.cut = True
    cache, upstream = kvcache.SharedCache(store, ttl=60, max_stale=0), Upstream()
    assert [cache.get("k", upstream).value for _ in range(5)] == [1] * 5
    assert upstream.calls == 1
    down = Upstream()
    down.failure = RuntimeError("the upstream is down too")
    other = kvcache.SharedCache(store, ttl=60)
    for _ in range(3):
        with pytest.raises(kvcache.UpstreamUnavailable, match="cable is cut"):
            other.get("k", down)
    assert down.calls == 1


def test_a_store_that_takes_no_writes_keeps_nobody_waiting(store):
    def full(key, data, condition):
        raise kvcache.StoreUnavailable("no space left on device")

    cache, upstream = kvcache.SharedCache(store, ttl=60), Upstream()
    store.put = full
    assert cache.get("k", upstream, timeout=20).value == 1
    down = Upstream()
    down.failure = RuntimeError("upstream is down too")
    with pytest.raises(kvcache.UpstreamUnavailable, match="no space left"):
        kvcache.SharedCache(store, ttl=60).get("k", down, timeout=20)


def test_a_throttled_publish_pauses_where_the_store_tells_of_changes_too(store):
    """Nobody changes the record meanwhile: a wait for that must not turn the pause into a storm of writes."""
    throttled_until: list[float] = []
    put = store.put

    def throttling(key, data, condition):
        if decode(data).lock is None:
            throttled_until[:] = throttled_until or [time.monotonic() + 1.5]
            if time.monotonic() < throttled_until[0]:
                store.asked["throttled"] += 1
                raise kvcache.Throttled("slow down", retry_after=1.0)
        return put(key, data, condition)

    store.put = throttling
    with kvcache.SharedCache(store, ttl=60.0) as cache:
        assert cache.get("k", Upstream()).value == 1
        deadline = time.monotonic() + 30
        while decode(store.read("k")).lock is not None and time.monotonic() < deadline:
            time.sleep(0.05)
    assert decode(store.read("k")).answer.value == 1
    assert 1 <= store.asked["throttled"] <= 2


def test_a_value_that_is_not_json_is_a_failed_load(store):
    with pytest.raises(kvcache.UpstreamUnavailable, match="not JSON"):
        kvcache.SharedCache(store, ttl=60).get("k", lambda ctx: object())
    assert decode(store.read("k")).lock is None


def test_a_failing_observer_harms_nobody(store, caplog):
    def fails(event):
        raise RuntimeError("observer")

    assert kvcache.SharedCache(store, ttl=60, on_event=fails).get("k", Upstream()).value == 1
    assert "observer failed" in caplog.text


def test_a_forked_child_goes_on(store):
    cache, slow = kvcache.SharedCache(store, ttl=60), Upstream(takes=0.5)
    thread = threading.Thread(target=cache.get, args=("k", slow))
    thread.start()
    until(lambda: slow.calls == 1)
    child = os.fork()
    if child == 0:
        # The parent's flight does not exist here; neither may it be waited for.
        os._exit(0 if cache.get("other", lambda ctx: 7, timeout=10).value == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


def test_keys_in_hand_are_bounded(store):
    cache = kvcache.SharedCache(store, ttl=60, max_keys=10)
    for n in range(50):
        cache.get(f"k{n}", lambda ctx: 1)
    assert len(cache._known) <= 10


@pytest.mark.parametrize("bad", ["", "/k", "a/../b", "a\x00b"])
def test_bad_keys(store, bad):
    cache = kvcache.SharedCache(store, ttl=60)
    for call in (lambda: cache.get(bad, Upstream()), lambda: cache.peek(bad), lambda: cache.invalidate(bad)):
        with pytest.raises(kvcache.InvalidKey):
            call()


@pytest.mark.parametrize(
    "arguments",
    [{"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}, {"ttl": 1, "refresh_ahead": 1.0}, {"ttl": 1, "lease": 0}],
)
def test_numbers_that_make_no_sense(store, arguments):
    with pytest.raises(ValueError, match="expected"):
        kvcache.SharedCache(store, **arguments)


def test_a_store_without_conditional_writes_is_refused(tmp_path):
    with pytest.raises(kvcache.Unsupported):
        kvcache.SharedCache(kvcache.open_store(f"file://{tmp_path}"), ttl=1)
