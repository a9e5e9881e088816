"""Shared answers while the store fails: nothing wrong is served, and what a failover loses is a refresh more.

The upstream counts, so an answer says how new it is. Whatever happens to the store, a node is never given an answer
that the upstream did not give, nor one older than it had before; it is never left without one; and when the store is
back there are new ones for all.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

import kvcache
from tests import servers
from tests.proxy import DropReply, DropRequest, Fault, HttpProxy, Outage, TcpProxy

KEY = "answer"
TTL = 0.2
PATIENCE = 120.0


class Upstream:
    """Gives out numbers, each with a token that nobody could make up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.given: list[str] = []

    def __call__(self, _: kvcache.LoadContext) -> list[int | str]:
        with self._lock:
            self.given.append(secrets.token_hex(8))
            return [len(self.given), self.given[-1]]


class Node:
    """Asks again and again in a thread of its own, with a store and a cache of its own."""

    def __init__(self, url: str, upstream: Upstream, stop: threading.Event) -> None:
        self.url, self._upstream, self._stop = url, upstream, stop
        self.served: list[list[int | str]] = []
        self.failed: list[Exception] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with kvcache.open_store(self.url) as store:
            cache = kvcache.SharedCache(store, ttl=TTL)
            while not self._stop.is_set():
                try:
                    self.served.append(cache.get(KEY, self._upstream).value)
                except Exception as error:
                    self.failed.append(error)
                time.sleep(0.01)

    def newest(self) -> int:
        return int(self.served[-1][0]) if self.served else 0


class Fleet:
    """A node for each URL."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.upstream, self.stop = Upstream(), threading.Event()
        self.nodes = [Node(url, self.upstream, self.stop) for url in urls]

    def refresh(self) -> None:
        """Waits until every node has a newer answer than there is now."""
        known = len(self.upstream.given)
        self._await(lambda node: node.newest() > known)

    def be_served(self) -> None:
        """Waits until every node has asked a few times more, and had an answer."""
        before = {id(node): len(node.served) for node in self.nodes}
        self._await(lambda node: len(node.served) >= before[id(node)] + 3)

    def _await(self, holds: Callable[[Node], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not all(holds(node) for node in self.nodes):
            assert time.monotonic() < deadline, f"{[node.newest() for node in self.nodes]}"
            time.sleep(0.02)


@contextmanager
def nodes(*urls: str) -> Iterator[Fleet]:
    """A fleet at work while the block runs."""
    fleet = Fleet(urls)
    for node in fleet.nodes:
        node.thread.start()
    try:
        fleet.refresh()
        yield fleet
    finally:
        fleet.stop.set()
        for node in fleet.nodes:
            node.thread.join(PATIENCE)
    given = fleet.upstream.given
    for node in fleet.nodes:
        assert node.failed == []
        numbers = [int(number) for number, _ in node.served]
        assert numbers == sorted(numbers), "an answer was followed by an older one"
        assert all(given[int(number) - 1] == token for number, token in node.served), "a made-up answer"


@pytest.fixture
def prefix() -> str:
    return f"failover-{uuid.uuid4().hex[:8]}/"


@contextmanager
def pair() -> Iterator[tuple[servers.Redis, servers.Redis, TcpProxy]]:
    """A primary, its replica, and the address under which clients find whoever is the primary."""
    with servers.Redis() as primary, servers.Redis() as replica, TcpProxy(primary.port) as address:
        with primary.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)  # or it waits five seconds for more replicas
        with replica.client() as client:
            client.replicaof(primary.host, primary.port)
        yield primary, replica, address


def caught_up(primary: servers.Redis) -> None:
    with primary.client() as client:
        assert client.wait(1, 30_000) == 1


def promote(replica: servers.Redis) -> None:
    with replica.client() as client:
        client.replicaof("NO", "ONE")


def fail_over(primary: servers.Redis, replica: servers.Redis, address: TcpProxy) -> None:
    primary.kill()
    promote(replica)
    address.upstream = replica.port


# -- what is lost, one write at a time ---------------------------------------------------------------------------------


def test_an_answer_that_a_failover_lost_costs_a_refresh(prefix: str) -> None:
    upstream = Upstream()
    with pair() as (primary, replica, address), ExitStack() as stack:
        url = primary.store_url(prefix, port=address.port)
        one, two = (kvcache.SharedCache(stack.enter_context(kvcache.open_store(url)), ttl=3600) for _ in range(2))
        assert one.get(KEY, upstream).value[0] == 1
        caught_up(primary)
        promote(replica)  # it hears no more: what is acknowledged from now on is lost with the primary
        one.invalidate(KEY)
        assert one.get(KEY, upstream).value[0] == 2
        fail_over(primary, replica, address)

        assert two.get(KEY, upstream).value[0] == 1  # within its ttl: older, not wrong
        assert one.get(KEY, upstream).value[0] == 2  # and nobody gives up what he has for it
        two.invalidate(KEY)
        assert two.get(KEY, upstream).value[0] == 3
        assert len(upstream.given) == 3


def test_a_claim_that_a_failover_lost_costs_a_call_and_publishes_nothing(prefix: str) -> None:
    loading, go_on, told = threading.Event(), threading.Event(), []

    def slow(_: kvcache.LoadContext) -> str:
        loading.set()
        assert go_on.wait(PATIENCE)
        return "of the leader whose claim was lost"

    with pair() as (primary, replica, address), ExitStack() as stack:
        url = primary.store_url(prefix, port=address.port)
        stores = [stack.enter_context(kvcache.open_store(url)) for _ in range(3)]
        lost = kvcache.SharedCache(stores[0], ttl=3600, on_event=told.append)
        stores[0].write("warm", b"")
        caught_up(primary)
        promote(replica)
        leading = threading.Thread(target=lost.get, args=(KEY, slow))
        leading.start()
        assert loading.wait(PATIENCE)
        fail_over(primary, replica, address)
        other = kvcache.SharedCache(stores[1], ttl=3600).get(KEY, lambda ctx: "of the other leader")
        assert other.refreshed
        go_on.set()
        leading.join(PATIENCE)
        fresh = kvcache.SharedCache(stores[2], ttl=3600).get(KEY, lambda ctx: "a call too many")
        assert (fresh.value, fresh.refreshed) == ("of the other leader", False)
        assert not any(isinstance(event, kvcache.events.Published) for event in told)


# -- a fleet at work meanwhile -----------------------------------------------------------------------------------------


def test_a_redis_primary_is_killed_and_replaced(prefix: str) -> None:
    with pair() as (primary, replica, address):
        url = primary.store_url(prefix, port=address.port)
        caught_up(primary)
        with nodes(url, url, url) as fleet:
            promote(replica)  # whatever is written from now on will be lost
            fleet.refresh()
            fail_over(primary, replica, address)
            fleet.refresh()


def test_slots_of_a_cluster_move(redis_cluster: servers.RedisCluster, prefix: str) -> None:
    url, slot = redis_cluster.store_url(prefix), redis_cluster.slot_of(f"{prefix}{KEY}")
    with nodes(url, url, url) as fleet:
        for _ in range(3):
            target = next(node for node in redis_cluster.nodes if node is not redis_cluster.primary_of(slot))
            with redis_cluster.half_moved(slot, target):
                time.sleep(0.3)
            fleet.refresh()


def test_a_consul_agent_is_restarted(prefix: str) -> None:
    with servers.Consul() as server:
        url = f"{server.store_url(prefix)}?timeout=1s"
        with nodes(url, url, url) as fleet:
            server.kill()
            fleet.be_served()  # with what each has in hand
            server.start()  # with nothing in it
            fleet.refresh()


@pytest.mark.parametrize("kind", ["redis", "consul"])
def test_the_network_loses_requests_and_answers(request: pytest.FixtureRequest, kind: str, prefix: str) -> None:
    server = request.getfixturevalue(kind)
    plan = [
        Fault(DropReply(), probability=0.1),
        Fault(DropRequest(), probability=0.1),
        Fault(DropReply(reset=True), probability=0.05),
        Fault(Outage(0.3), probability=0.01),
    ]
    with (HttpProxy if kind == "consul" else TcpProxy)(server.port) as proxy:
        near, far = server.store_url(prefix), server.store_url(prefix, port=proxy.port)
        far += ("&" if "?" in far else "?") + "timeout=1s"
        with nodes(near, far, far) as fleet:
            proxy.follow(plan, seed=1)
            for _ in range(5):
                fleet.refresh()
            proxy.plan = []
            fleet.refresh()
