"""Redis and Valkey when things go wrong: lost answers, restarts, failovers, moving slots."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kvcache.errors import AmbiguousWrite, Conflict, NotFound, StoreUnavailable
from kvcache.kvs import ABSENT, ANYWAY, Store
from kvcache.url import open_store
from tests import servers
from tests.proxy import DelayReply, DropReply, DropRequest, Fault, TcpProxy
from tests.servers.binaries import libraries, unpacked
from tests.servers.process import Server

LARGE = b"0123456789abcdef" * 160_000
SCRIPT = r"EVALSHA"


@pytest.fixture
def prefix() -> str:
    return f"f{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def proxy(redis: servers.Redis) -> Iterator[TcpProxy]:
    with TcpProxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def store(redis: servers.Redis, proxy: TcpProxy, prefix: str) -> Iterator[Store]:
    """By way of the proxy, and impatient."""
    with open_store(redis.store_url(prefix, port=proxy.port) + "&timeout=1s") as store:
        store.write("warm", b"")  # the scripts are loaded, so every further request is one EVALSHA
        yield store


@pytest.fixture
def direct(redis: servers.Redis, prefix: str) -> Iterator[Store]:
    with open_store(redis.store_url(prefix)) as store:
        yield store


# -- lost requests, lost answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [DropReply(), DropReply(reset=True), DropReply(silent=True), DropReply(after=5)])
def test_a_write_whose_answer_was_lost_has_landed_once(
    store: Store, direct: Store, proxy: TcpProxy, fault: DropReply
) -> None:
    proxy.plan = [Fault(fault, path=SCRIPT, nth={1, 3, 5})]
    created = store.write_if("key", b"1", ABSENT)
    assert direct.read_versioned("key").version == created
    replaced = store.write_if("key", b"2", created)
    assert direct.read_versioned("key").version == replaced
    anyway = store.write("key", b"3")
    assert direct.read_versioned("key").version == anyway
    assert len({created, replaced, anyway}) == 3


def test_a_write_that_never_arrived_is_sent_again_if_it_has_a_condition(
    store: Store, direct: Store, proxy: TcpProxy
) -> None:
    proxy.plan = [Fault(DropRequest(), path=SCRIPT, nth={1, 3})]
    version = store.write_if("key", b"1", ABSENT)
    version = store.write_if("key", b"2", version)
    proxy.plan = [Fault(DropRequest(), path=r"anyway", nth=1)]
    with pytest.raises(AmbiguousWrite):  # it might arrive late, after the write of somebody else
        store.write("key", b"3")
    assert direct.read("key") == b"2"


def test_a_late_copy_changes_nothing(store: Store, direct: Store, proxy: TcpProxy) -> None:
    """The server was too slow for us; we sent the write again; then it carried both out."""
    version = store.write("key", b"1")
    proxy.plan = [Fault(DelayReply(1.5), path=SCRIPT, nth=1)]
    second = store.write_if("key", b"2", version)
    third = direct.write_if("key", b"3", second)
    proxy.wait_idle()
    assert direct.read_versioned("key").version == third


def test_a_refused_second_copy_is_not_called_a_conflict(store: Store, direct: Store, proxy: TcpProxy) -> None:
    """Ours landed, its answer was lost, and somebody replaced it before we asked again: nobody can tell any more."""
    version = store.write("key", b"1")

    def replace(_: object) -> bool:
        direct.write("key", b"theirs")
        return False

    # `replace` runs when the second copy passes by, and not before: ours has to land first.
    asked = iter([False, True])
    proxy.plan = [
        Fault(DropReply(), path=SCRIPT, nth=1),
        Fault(DropRequest(), path=SCRIPT, when=lambda seen: next(asked, False) and replace(seen)),
    ]
    with pytest.raises(AmbiguousWrite):
        store.write_if("key", b"mine", version)
    assert direct.read("key") == b"theirs"


def test_a_deletion_whose_answer_was_lost_is_looked_into(store: Store, direct: Store, proxy: TcpProxy) -> None:
    direct.delete("another")  # so that the server knows the scripts, and each is one request
    store.write("key", b"1")
    proxy.plan = [Fault(DropReply(), path=SCRIPT, nth=2)]  # it looks first whether there are parts
    store.delete("key")
    direct.write("key", b"2")
    asked = iter([False, False, True])

    def create(_: object) -> bool:
        if next(asked, False):
            direct.write("key", b"theirs")
        return False

    proxy.plan = [Fault(DropReply(), path=SCRIPT, nth=2), Fault(DropRequest(), path=SCRIPT, when=create)]
    with pytest.raises(AmbiguousWrite):
        store.delete("key")
    assert direct.read("key") == b"theirs"


def test_a_plain_conflict_is_one(store: Store, proxy: TcpProxy) -> None:
    version = store.write("key", b"1")
    store.write("key", b"2")
    for match in (version, ABSENT):
        with pytest.raises(Conflict):
            store.write_if("key", b"3", match)


@pytest.mark.parametrize(("condition", "first"), [(ANYWAY, 2), (ABSENT, 1)])
def test_a_server_that_never_answers_leaves_the_outcome_open(
    store: Store, direct: Store, proxy: TcpProxy, condition: object, first: int
) -> None:
    proxy.plan = [Fault(DropReply(), path=SCRIPT, nth=range(first, 1000))]  # a write without condition looks first
    began = time.monotonic()
    with pytest.raises(AmbiguousWrite):
        store.put("key", b"1", condition)
    with pytest.raises(StoreUnavailable) as caught:
        store.read("key")
    assert not isinstance(caught.value, AmbiguousWrite)
    assert time.monotonic() - began < 10
    assert direct.read("key") == b"1"


def test_a_server_that_is_down_has_certainly_not_written(store: Store, proxy: TcpProxy) -> None:
    proxy.down()
    time.sleep(0.05)
    with pytest.raises(StoreUnavailable) as caught:
        store.write_if("key", b"1", ABSENT)
    proxy.up()
    assert not isinstance(caught.value, AmbiguousWrite)
    store.write_if("key", b"1", ABSENT)


def test_an_outage_shorter_than_our_patience_is_not_noticed(store: Store, proxy: TcpProxy) -> None:
    with proxy.outage():
        threading.Timer(0.3, proxy.up).start()
        version = store.write_if("key", b"1", ABSENT)
    assert store.read_versioned("key").version == version


def test_a_server_that_forgot_the_scripts_is_told_again(redis: servers.Redis, direct: Store) -> None:
    version = direct.write("key", b"1")
    with redis.client() as client:
        client.script_flush()
    direct.write_if("key", b"2", version)


def test_a_part_lost_on_the_way_is_sent_again(store: Store, proxy: TcpProxy) -> None:
    proxy.plan = [Fault(DropReply(), path=r"\r\nSET\r\n.*\.parts/", times=2)]
    store.write("large", LARGE)
    proxy.plan = [Fault(DropReply(after=1000), path=r"\r\nGET\r\n", times=2)]
    assert store.read("large") == LARGE


def test_a_child_process_goes_on_with_connections_of_its_own(direct: Store) -> None:
    direct.write("theirs", b"parent")
    version = direct.write("key", b"")
    direct.wait_for_change("key", version, 0.05)  # there is a subscriber thread now, which the child does not have
    child = os.fork()
    if child == 0:
        try:
            mine = direct.write("child", b"child")
            seen = not direct.wait_for_change("child", mine, 0.2) and direct.read("theirs") == b"parent"
            os._exit(0 if seen and "kvcache-redis-watch" in [t.name for t in threading.enumerate()] else 1)
        except BaseException:
            os._exit(2)
    for n in range(50):
        direct.write("key", b"%d" % n)
        assert direct.read("key") == b"%d" % n
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert direct.read("child") == b"child"


# -- restarts and failovers --------------------------------------------------------------------------------------------


def test_what_a_restart_loses_is_absent_and_its_versions_are_refused(prefix: str) -> None:
    with servers.Redis() as server, open_store(server.store_url(prefix)) as store:
        version = store.write("key", b"1")
        store.write("large", LARGE)
        server.kill()
        server.start()
        for key in ("key", "large"):
            with pytest.raises(NotFound):
                store.read(key)
        with pytest.raises(Conflict):
            store.write_if("key", b"2", version)
        store.write_if("key", b"2", ABSENT)


def test_a_server_with_a_log_loses_nothing(prefix: str) -> None:
    with servers.Redis(durable=True) as server, open_store(server.store_url(prefix) + "&timeout=10s") as store:
        store.write("large", LARGE)
        with counting(store) as count:
            for _ in range(2):
                time.sleep(0.2)
                server.kill()
                server.start()
        assert int(store.read("counter")) == count()
        assert store.read("large") == LARGE


@contextmanager
def counting(store: Store, keys: tuple[str, ...] = ("counter",)) -> Iterator[Callable[[], int]]:
    """Raises each counter in a thread of its own while the block runs; then tells how often all were raised."""
    stop = threading.Event()
    done: list[int] = []
    failed: list[BaseException] = []

    def count(key: str) -> None:
        times = 0
        try:
            while not stop.is_set() or times == 0:
                try:
                    stored = store.read_versioned(key)
                    store.write_if(key, b"%d" % (int(stored.data) + 1), stored.version)
                except NotFound:
                    store.write_if(key, b"1", ABSENT)
                times += 1
        except BaseException as error:
            failed.append(error)
        done.append(times)

    threads = [threading.Thread(target=count, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(done)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


def test_a_replica_refuses_writes_and_is_left(prefix: str) -> None:
    with servers.Redis() as primary, servers.Redis() as replica, replica.client() as client:
        store = open_store(replica.store_url(prefix) + "&timeout=600ms")
        client.replicaof(primary.host, primary.port)
        with pytest.raises(StoreUnavailable, match="read only replica") as caught:
            store.write_if("key", b"1", ABSENT)
        assert not isinstance(caught.value, AmbiguousWrite)
        client.replicaof("NO", "ONE")
        store.write_if("key", b"1", ABSENT)
        store.close()


def test_a_name_that_leads_to_another_primary_is_asked_again(prefix: str) -> None:
    """A managed Redis: one address, behind which the primary becomes a replica and another takes its place."""
    with servers.Redis() as old, servers.Redis() as new, TcpProxy(old.port) as address, old.client() as client:
        with open_store(old.store_url(prefix, port=address.port)) as store:
            version = store.write("key", b"1")
            with new.client() as other:
                other.replicaof(old.host, old.port)
                assert client.wait(1, 10_000) == 1
                other.replicaof("NO", "ONE")
            client.replicaof(new.host, new.port)
            address.upstream = new.port
            store.write_if("key", b"2", version)
        with open_store(new.store_url(prefix)) as store:
            assert store.read("key") == b"2"


class Sentinel(Server):
    """Watches one primary, and decides by itself alone."""

    name = "sentinel"

    def __init__(self, primary: servers.Redis) -> None:
        super().__init__()
        self._primary = primary

    def prepare(self) -> None:
        lines = [
            f"sentinel monitor main {self._primary.host} {self._primary.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 3000",
        ]
        (self.dir / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": libraries("redis")}

    def command(self) -> list[str]:
        binary = unpacked("redis", "redis-server")
        return [binary, f"{self.dir}/sentinel.conf", "--sentinel", "--port", str(self.port), "--bind", self.host]

    def is_ready(self) -> bool:
        """When it knows the replica it could promote."""
        import redis

        try:
            with redis.Redis(host=self.host, port=self.port, socket_timeout=5) as client:
                return len(client.sentinel_slaves("main")) == 1
        except redis.RedisError:
            return False


def test_a_primary_that_dies_is_replaced(prefix: str) -> None:
    """Nothing wrong is served. What was written a moment before may be gone; then it is absent, or the older value."""
    with servers.Redis() as primary, servers.Redis() as replica, replica.client() as client:
        client.replicaof(primary.host, primary.port)
        with Sentinel(primary) as sentinel:
            url = f"redis://{sentinel.host}:{sentinel.port}/0?sentinel=main&prefix={prefix}&timeout=20s"
            with open_store(url) as store:
                version = store.write("key", b"1")
                with primary.client() as first:
                    assert first.wait(1, 10_000) == 1
                primary.kill()
                assert store.read("key") == b"1"
                store.write_if("key", b"2", version)
                assert store.read("key") == b"2"
                assert client.role()[0] in (b"master", "master")


# -- clusters ----------------------------------------------------------------------------------------------------------


def test_slots_move_while_clients_write(redis_cluster: servers.RedisCluster, prefix: str) -> None:
    keys = ("{one}", "{two}", "{three}")
    slots = [redis_cluster.slot_of(f"{prefix}{key}") for key in keys]
    with open_store(redis_cluster.store_url(prefix)) as store:
        store.write("large", LARGE)
        with counting(store, keys) as count:
            for turn in range(4):
                for slot in slots:
                    others = [node for node in redis_cluster.nodes if node is not redis_cluster.primary_of(slot)]
                    with redis_cluster.half_moved(slot, others[turn % 2]):
                        time.sleep(0.05)
        assert sum(int(store.read(key)) for key in keys) == count()
        assert store.read("large") == LARGE
        assert set(store.list()) == {*keys, "large"}


def knows_four(node: servers.Redis) -> bool:
    with node.client() as client:
        return b"cluster_known_nodes:4" in client.execute_command("CLUSTER", "INFO")


def test_a_slot_moves_to_a_node_that_is_new(prefix: str) -> None:
    """The way to grow a cluster. The client does not know the new node, and its library stumbles over that."""
    with servers.RedisCluster() as cluster, open_store(cluster.store_url(prefix) + "&timeout=20s") as store:
        store.write("key", b"")
        new = servers.Redis("--cluster-enabled", "yes").start()
        with new.client() as client:
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 9)
            client.execute_command("CLUSTER", "MEET", cluster.nodes[0].host, cluster.nodes[0].port)
        cluster.nodes.append(new)
        while not all(knows_four(node) for node in cluster.nodes):
            time.sleep(0.05)
        cluster.await_whole()
        with counting(store, ("{q}1", "{q}2")) as count:
            with cluster.half_moved(cluster.slot_of(f"{prefix}{{q}}"), new):
                time.sleep(0.5)
            time.sleep(0.2)
        assert int(store.read("{q}1")) + int(store.read("{q}2")) == count()


def test_a_primary_of_a_cluster_that_dies_is_replaced(prefix: str) -> None:
    with servers.RedisCluster(replicas=1) as cluster:
        slot = cluster.slot_of(f"{prefix}key")
        with open_store(cluster.store_url(prefix) + "&timeout=30s") as store:
            version = store.write("key", b"1")
            with cluster.primary_of(slot).client() as client:
                assert client.wait(1, 10_000) == 1
            dead = cluster.kill_primary(slot)
            version = store.write_if("key", b"2", version)
            cluster.await_takeover(slot, dead)
            assert store.read_versioned("key").version == version
            store.write("large", LARGE)
            assert store.read("large") == LARGE
