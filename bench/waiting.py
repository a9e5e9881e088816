"""`python -m bench.waiting`: what a follower waits and asks, told of the change by its store and polling for it.

A leader loads for a second or so; a follower on the same key, with nothing in hand, waits for its answer. Counted are
all requests to the server from when the follower begins until it has the answer, but for the leader's publish.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from redis.client import PubSub

import kvcache
from kvcache.backends.consul_http import ConsulHTTP
from tests.servers import Consul, Redis

ROUNDS = 12
PUBLISH = 1
"""Requests of the leader while the follower waits."""


class Polling:
    """A store that cannot tell of changes, though the one behind it could."""

    def __init__(self, store: kvcache.Store) -> None:
        self._store = store
        self.capabilities = replace(store.capabilities, watch=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Counter:
    """Counts calls of methods, of whatever object."""

    def __init__(self, *methods: tuple[type, str]) -> None:
        self.count = 0
        self._lock = threading.Lock()
        for kind, name in methods:
            setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, method: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            with self._lock:
                self.count += 1
            return method(*args, **options)

        return counted


@contextmanager
def nodes(url: str, polling: bool) -> Iterator[tuple[kvcache.SharedCache, kvcache.SharedCache]]:
    """A leader and a follower, each with connections of its own that are in use already."""
    with kvcache.open_store(url) as ours, kvcache.open_store(url) as theirs:
        for store in (ours, theirs):
            store.delete("warm")
        follower: Any = Polling(theirs) if polling else theirs
        yield kvcache.SharedCache(ours, ttl=3600), kvcache.SharedCache(follower, ttl=3600)


def one_round(url: str, polling: bool, counter: Counter, seconds: float) -> tuple[float, int]:
    """(milliseconds from the end of the load to the follower having the answer, requests while it waited)."""
    key, loading, loaded = uuid.uuid4().hex, threading.Event(), [0.0]

    def load(_: kvcache.LoadContext) -> str:
        loading.set()
        time.sleep(seconds)
        loaded[0] = time.perf_counter()
        return "answer"

    with nodes(url, polling) as (leader, follower):
        thread = threading.Thread(target=leader.get, args=(key, load))
        thread.start()
        loading.wait()
        before = counter.count
        follower.get(key, load)
        waited = (time.perf_counter() - loaded[0]) * 1000
        asked = counter.count - before - PUBLISH
        thread.join()
    return waited, asked


def main() -> None:
    chance = random.Random(1)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {ROUNDS} rounds each, median (least-most)\n")
    print("| store | follower | ms from load to answer | requests |\n|---|---|--:|--:|")
    counters = {
        Redis: Counter((redis.Redis, "execute_command"), (PubSub, "execute_command")),
        Consul: Counter((ConsulHTTP, "request")),
    }
    for kind, counter in counters.items():
        with kind() as server:
            for polling in (False, True):
                # Loads of many lengths, so that no poll is timed to their ends.
                rounds = [
                    one_round(server.store_url(prefix="bench/"), polling, counter, chance.uniform(0.9, 1.4))
                    for _ in range(ROUNDS)
                ]
                cells = [
                    f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"
                    for values in zip(*rounds, strict=True)
                ]
                print(f"| {server.name} | {'polling' if polling else 'told'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
