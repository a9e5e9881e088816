"""A Redis Cluster on loopback: three primaries, optionally with a replica each; slots to move, primaries to kill."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import quote

from tests.servers.process import READY_WITHIN, StartFailed
from tests.servers.redis import Redis

SLOTS = 16_384
NODE_TIMEOUT_MS = 2000
"""How long the nodes miss a primary before its replica takes over."""


class RedisCluster:
    """`primaries` nodes that share the slots evenly, and `replicas` for each of them. Start it as a `Server`."""

    def __init__(self, primaries: int = 3, replicas: int = 0, kind: type[Redis] = Redis) -> None:
        options: tuple[str, ...] = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
        # A replica that fell behind is still better than none, to a test that kills a primary.
        options += ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
        self.nodes = [kind(*options) for _ in range(primaries * (1 + replicas))]
        self._primaries = primaries

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Starts the nodes, joins them, and returns when every node says that the cluster is whole."""
        for node in self.nodes:
            node.start()
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for index, node in enumerate(self.nodes):
            _call(node, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for index, node in enumerate(primaries):
            first, last = (SLOTS * k // len(primaries) for k in (index, index + 1))
            _call(node, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for node in self.nodes[1:]:
            _call(self.nodes[0], "CLUSTER", "MEET", node.host, node.port)
        _until("the nodes know one another", lambda: all(len(_known(n)) == len(self.nodes) for n in self.nodes))
        for index, node in enumerate(replicas):
            _call(node, "CLUSTER", "REPLICATE", _id(primaries[index % len(primaries)]))
        _until("the replicas are linked", lambda: all(_linked(n) for n in replicas))
        self.await_whole()
        return self

    def close(self) -> None:
        """Stops every node for good."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- clients ---------------------------------------------------------------------------------------------------

    def client(self) -> Any:
        """A redis-py cluster client."""
        import redis

        node = next(node for node in self.nodes if node.running)
        return redis.cluster.RedisCluster(host=node.host, port=node.port, socket_timeout=10)

    def store_url(self, prefix: str = "") -> str:
        """URL for `kvcache.open_store`, naming one node that runs."""
        node = next(node for node in self.nodes if node.running)
        return f"redis://{node.host}:{node.port}/0?cluster=true" + (f"&prefix={quote(prefix)}" if prefix else "")

    # -- what can happen to a cluster ------------------------------------------------------------------------------

    def slot_of(self, key: str) -> int:
        """The slot of a key (of its {tag}, if it has one)."""
        return int(_call(self._running()[0], "CLUSTER", "KEYSLOT", key))

    def primary_of(self, slot: int) -> Redis:
        """The node that serves `slot`, as the nodes that run see it."""
        for first, last, (_, port, *_), *_ in _call(self._running()[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def move_slot(self, slot: int, target: Redis) -> None:
        """Moves `slot` and its keys to `target`. Clients meanwhile get ASK, then MOVED."""
        with self.half_moved(slot, target):
            pass

    @contextlib.contextmanager
    def half_moved(self, slot: int, target: Redis) -> Iterator[None]:
        """Inside, `slot` is on its way to `target` and no key has been moved yet; afterwards all of it has arrived."""
        source = self.primary_of(slot)
        if source is target:
            yield
            return
        _call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        _call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        yield
        while keys := _call(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            _call(source, "MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *keys)
        # The target first: between the two, both would otherwise send clients to the other one.
        _call(target, "CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        _call(source, "CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        others = [node for node in self._running() if node not in (source, target) and not _is_replica(node)]
        for node in others:
            _call(node, "CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        _until("everybody knows the new home", lambda: all(_home(n, slot) == target.port for n in self._running()))

    def kill_primary(self, slot: int) -> Redis:
        """Kills the primary of `slot` at once and returns it; its replica takes over in a few seconds."""
        node = self.primary_of(slot)
        node.kill()
        return node

    def await_takeover(self, slot: int, dead: Redis) -> Redis:
        """Returns the node that took `slot` over from `dead`, once the cluster is whole again."""
        _until(f"slot {slot} has a new primary", lambda: all(_home(n, slot) != dead.port for n in self._running()))
        self.await_whole()
        return self.primary_of(slot)

    def await_whole(self) -> None:
        """Returns when every running node says that all slots are served."""
        _until(
            "the cluster is whole", lambda: all(_info(n, "CLUSTER")["cluster_state"] == "ok" for n in self._running())
        )

    def _running(self) -> list[Redis]:
        return [node for node in self.nodes if node.running]


def _call(node: Redis, *command: Any) -> Any:
    with node.client() as client:
        # CLUSTER SLOTS and friends as they come: redis-py would give each a shape of its own.
        client.response_callbacks.clear()
        return client.execute_command(*command)


def _info(node: Redis, what: str) -> dict[str, str]:
    text = _call(node, "CLUSTER", "INFO") if what == "CLUSTER" else _call(node, "INFO", what)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def _id(node: Redis) -> str:
    return str(_call(node, "CLUSTER", "MYID"), "ascii")


def _known(node: Redis) -> list[str]:
    """The other nodes and itself, without those it is still shaking hands with."""
    lines = _call(node, "CLUSTER", "NODES").decode().splitlines()
    return [line for line in lines if "handshake" not in line and "noaddr" not in line]


def _is_whole(node: Redis) -> bool:
    return _info(node, "CLUSTER")["cluster_state"] == "ok"


def _is_replica(node: Redis) -> bool:
    return _info(node, "replication")["role"] == "slave"


def _linked(node: Redis) -> bool:
    return _info(node, "replication").get("master_link_status") == "up"


def _home(node: Redis, slot: int) -> int | None:
    for first, last, (_, port, *_), *_ in _call(node, "CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(port)
    return None


def _until(what: str, holds: Callable[[], bool]) -> None:
    import redis

    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        # A node in the middle of a change may refuse to answer.
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        time.sleep(0.05)
    raise StartFailed(f"redis cluster: not after {READY_WITHIN:.0f} s: {what}")
