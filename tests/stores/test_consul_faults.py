"""Consul when things go wrong: lost answers, restarts, blocking queries that say too much or too little."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from kvcache.errors import AmbiguousWrite, Conflict, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT, Store
from kvcache.url import open_store
from tests import servers
from tests.proxy import Answer, CutBody, DelayReply, DropReply, DropRequest, Fault, HttpProxy

LARGE = b"0123456789abcdef" * 70_000
"""1.1 MB: three parts."""
WRITE = r"^/v1/txn"


@pytest.fixture
def prefix() -> str:
    return f"f{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(consul: servers.Consul, prefix: str) -> Iterator[Store]:
    with open_store(consul.store_url(prefix)) as store:
        yield store


@pytest.fixture
def proxy(consul: servers.Consul) -> Iterator[HttpProxy]:
    with HttpProxy(consul.port) as proxy:
        yield proxy


@pytest.fixture
def far(consul: servers.Consul, proxy: HttpProxy, prefix: str) -> Iterator[Store]:
    """The same store by way of the proxy, and impatient."""
    with open_store(f"{consul.store_url(prefix, port=proxy.port)}?timeout=1s") as store:
        yield store


# -- lost requests, lost answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        DropReply(),
        DropReply(reset=True),
        DropReply(silent=True),
        CutBody(after=10),
        Answer(500, b"rpc error making call: EOF", applied=True),
        Answer(502, b"<html>", applied=True),
    ],
    ids=lambda action: str(action)[:40],
)
def test_a_write_whose_answer_was_lost_has_landed_once(
    far: Store, store: Store, proxy: HttpProxy, action: object
) -> None:
    proxy.plan = [Fault(action, path=WRITE, nth={1, 3, 5})]
    created = far.write_if("key", b"1", ABSENT)
    assert store.read_versioned("key").version == created
    replaced = far.write_if("key", b"2", created)
    assert store.read_versioned("key").version == replaced
    anyway = far.write("key", b"3")
    assert store.read_versioned("key").version == anyway
    assert len({created, replaced, anyway}) == 3


def test_a_write_that_never_arrived_is_sent_again_if_it_has_a_condition(
    far: Store, store: Store, proxy: HttpProxy
) -> None:
    proxy.plan = [Fault(DropRequest(), path=WRITE, nth={1, 3, 5})]
    version = far.write_if("key", b"1", ABSENT)
    version = far.write_if("key", b"2", version)
    with pytest.raises(AmbiguousWrite):  # it might arrive late, after the write of somebody else
        far.write("key", b"3")
    assert store.read("key") == b"2"


def test_a_late_copy_changes_nothing(far: Store, store: Store, proxy: HttpProxy) -> None:
    version = far.write("key", b"1")
    proxy.plan = [Fault(DelayReply(1.0), path=WRITE, nth=1)]
    second = far.write_if("key", b"2", version)
    third = store.write_if("key", b"3", second)
    proxy.wait_idle()
    assert store.read_versioned("key").version == third


def test_a_refused_second_copy_is_not_called_a_conflict(far: Store, store: Store, proxy: HttpProxy) -> None:
    """Ours landed, its answer was lost, and somebody replaced it before we asked again: nobody can tell any more."""
    version = far.write("key", b"1")
    asked = iter([False, True])

    def replace(_: object) -> bool:
        if next(asked, False):
            store.write("key", b"theirs")
        return False

    proxy.plan = [Fault(DropReply(), path=WRITE, nth=1), Fault(DropRequest(), path=WRITE, when=replace)]
    with pytest.raises(AmbiguousWrite):
        far.write_if("key", b"mine", version)
    assert store.read("key") == b"theirs"


def test_a_deletion_whose_answer_was_lost_is_looked_into(far: Store, store: Store, proxy: HttpProxy) -> None:
    far.write("key", b"1")
    proxy.plan = [Fault(DropReply(), method="DELETE")]
    far.delete("key")
    store.write("key", b"2")

    asked = iter([False, False, True])  # it looks for parts, deletes, and then looks what became of it

    def create(_: object) -> bool:
        if next(asked, False):
            store.write("key", b"theirs")
        return False

    proxy.plan = [Fault(DropReply(), method="DELETE", nth=1), Fault(DropRequest(), when=create)]
    with pytest.raises(AmbiguousWrite):
        far.delete("key")
    assert store.read("key") == b"theirs"


def test_a_refusal_in_words_we_do_not_know_is_looked_into(far: Store, proxy: HttpProxy) -> None:
    body = json.dumps({"Errors": [{"OpIndex": 0, "What": "no longer so"}]}).encode()
    words = Answer(409, body, {"Date": "Tue, 24 Nov 2026 23:03:02 GMT"})
    version = far.write("key", b"1")
    later = far.write("key", b"2")
    proxy.plan = [Fault(words, path=WRITE)]
    with pytest.raises(Conflict):
        far.write_if("key", b"3", version)
    with pytest.raises(StoreUnavailable, match="no longer so"):
        far.write_if("key", b"3", later)


def test_a_server_that_never_answers_leaves_the_outcome_open(far: Store, store: Store, proxy: HttpProxy) -> None:
    proxy.plan = [Fault(Answer(500, b"No cluster leader", applied=True), path=WRITE)]
    with pytest.raises(AmbiguousWrite, match="No cluster leader"):
        far.write_if("key", b"1", ABSENT)
    assert store.read("key") == b"1"
    proxy.plan = [Fault(Answer(500, b"No cluster leader"))]
    with pytest.raises(StoreUnavailable) as caught:
        far.read("key")
    assert not isinstance(caught.value, AmbiguousWrite)


def test_throttled_is_certainly_not_written(far: Store, proxy: HttpProxy) -> None:
    proxy.plan = [Fault(Answer(429, b"slow down", {"Retry-After": "7"}), path=WRITE)]
    with pytest.raises(Throttled) as caught:
        far.write_if("key", b"1", ABSENT)
    assert caught.value.retry_after == 7
    proxy.plan = [Fault(Answer(429, b"slow down"), path=WRITE, times=1)]
    far.write_if("key", b"1", ABSENT)


def test_an_agent_that_is_down_has_certainly_not_written(far: Store, proxy: HttpProxy) -> None:
    far.write("warm", b"")
    with proxy.outage():
        with pytest.raises(StoreUnavailable) as caught:
            far.write_if("key", b"1", ABSENT)
        assert not isinstance(caught.value, AmbiguousWrite)
    far.write_if("key", b"1", ABSENT)


def test_a_part_that_arrives_cut_or_turned_is_asked_for_again(far: Store, store: Store, proxy: HttpProxy) -> None:
    store.write("large", LARGE)
    proxy.plan = [Fault(CutBody(after=1000), method="GET", path=r"\.parts/", nth=2)]
    assert far.read("large") == LARGE
    proxy.plan = [Fault(CutBody(after=1000, seamless=True), method="GET", path=r"\.parts/", nth=2)]
    assert far.read("large") == LARGE  # only its digest can tell


def test_a_404_that_is_not_consuls_does_not_say_that_a_key_is_absent(far: Store, proxy: HttpProxy) -> None:
    proxy.plan = [Fault(Answer(404, b"nothing here", {"Date": "Tue, 24 Nov 2026 23:03:02 GMT"}))]
    with pytest.raises(StoreUnavailable, match="nothing here"):
        far.read("key")


def test_a_child_process_goes_on_with_connections_of_its_own(far: Store, proxy: HttpProxy) -> None:
    far.write("parent", b"1")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if far.stat("parent").size == 1 and not list(far.list("child")) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    far.read("parent")
    proxy.wait_idle()
    of_child = {entry.connection for entry in proxy.journal if "child" in entry.target or "keys=" in entry.target}
    of_parent = {entry.connection for entry in (proxy.journal[0], proxy.journal[-1])}
    assert of_child
    assert of_child.isdisjoint(of_parent), proxy.history()


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_what_a_restart_loses_is_absent(prefix: str) -> None:
    with servers.Consul() as server, open_store(f"{server.store_url(prefix)}?timeout=20s") as store:
        version = store.write("key", b"1")
        store.write("large", LARGE)
        server.kill()
        with open_store(f"{server.store_url(prefix)}?timeout=200ms") as hasty, pytest.raises(StoreUnavailable):
            hasty.read("key")
        starter = threading.Timer(0.3, server.start)
        starter.start()
        for key in ("key", "large"):
            with pytest.raises(NotFound):
                store.read(key)
        starter.join()
        with pytest.raises(Conflict):
            store.write_if("key", b"2", version)
        store.write_if("key", b"2", ABSENT)


def test_a_follower_waits_through_a_restart(prefix: str) -> None:
    with servers.Consul() as server, open_store(f"{server.store_url(prefix)}?timeout=20s") as store:
        version = store.write("key", b"1")
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(store.wait_for_change("key", version, 60.0)))
        waiter.start()
        time.sleep(0.3)
        server.kill()
        server.start()
        waiter.join(30)
        assert results == [True]  # it is gone, and that is a change


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_changes_wake_a_follower_at_once(store: Store) -> None:
    version = store.write("key", b"0")
    for n in range(5):
        published: list[float] = []

        def publish(n: int = n, published: list[float] = published) -> None:
            published.append(time.monotonic())
            store.write("key", b"%d" % n)

        timer = threading.Timer(0.2, publish)
        timer.start()
        assert store.wait_for_change("key", version, 30.0)
        assert time.monotonic() - published[0] < 2.0
        timer.join()
        version = store.stat("key").version


def test_writes_to_other_keys_are_no_change_and_cause_no_storm(far: Store, store: Store, proxy: HttpProxy) -> None:
    version = store.write("key", b"0")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.005):
            store.write("other", b"")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        proxy.wait_idle()
        proxy.forget()
        for key, has in (("key", version), ("absent", None)):
            began = time.monotonic()
            assert far.wait_for_change(key, has, 1.0) is False
            assert time.monotonic() - began < 3.0
        assert len(proxy.journal) <= 2 + 2 * 1.0 / 0.1, proxy.history()
    finally:
        stop.set()
        writer.join()


def test_a_follower_costs_one_request(far: Store, store: Store, proxy: HttpProxy) -> None:
    version = store.write("key", b"0")
    proxy.wait_idle()
    proxy.forget()
    far.wait_for_change("key", version, 1.0)
    assert len(proxy.journal) == 1, proxy.history()


def test_an_index_that_goes_backwards_begins_anew(far: Store, proxy: HttpProxy, store: Store) -> None:
    version = store.write("key", b"0")
    pair = json.dumps([{"Value": "", "Flags": 0, "ModifyIndex": int(version.token)}]).encode()
    date = {"Date": "Tue, 24 Nov 2026 23:03:02 GMT", "X-Consul-Index": "1"}
    proxy.plan = [Fault(Answer(200, pair, date), path=r"index=\d", nth=1)]
    threading.Timer(0.5, store.write, ["key", b"1"]).start()
    assert far.wait_for_change("key", version, 20.0)
    requests = [entry.target for entry in proxy.journal]
    assert "index=" in requests[0]
    assert "index=" not in requests[1], "it has to ask without an index first"
