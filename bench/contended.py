"""Single flight under contention: many callers at once for one key that nobody has, on one Redis."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiocache
import dogpile.cache
from aiocache.backends.redis import RedisCache
from cashews import Cache

import kvcache
from bench.page import Scale, load, spread, table, verdict
from tests.servers import Redis

LOAD = 0.1
"""Seconds that a load takes."""
TTL = 60
PEERS = ("cashews", "aiocache", "dogpile.cache", "redis")


@dataclass(frozen=True)
class Round:
    """Loads carried out, and the callers' latencies in milliseconds."""

    loads: int
    latencies: list[float]


class Loads:
    """Counts loads; each takes LOAD seconds."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def _one(self) -> None:
        with self._lock:
            self.count += 1

    def plain(self, _: Any = None) -> str:
        self._one()
        time.sleep(LOAD)
        return "answer"

    async def awaited(self, _: Any = None) -> str:
        self._one()
        await asyncio.sleep(LOAD)
        return "answer"


async def _kvcache(url: str, key: str, loads: Loads) -> Any:
    store = kvcache.open_store(url)
    cache = kvcache.AsyncSharedCache(store, ttl=TTL)

    async def close() -> None:
        await cache.aclose()
        store.close()

    return lambda: cache.get(key, loads.awaited), close


async def _cashews(url: str, key: str, loads: Loads, *, way: str) -> Any:
    cache = Cache()
    cache.setup(url)
    options = {"early": cache.early, "lock": lambda **more: cache(lock=True, **more), "plain": cache}
    return options[way](ttl=TTL, key=key)(loads.awaited), cache.close


async def _aiocache(url: str, key: str, loads: Loads, *, stampede: bool) -> Any:
    host, port = url.removeprefix("redis://").partition("/")[0].split(":")
    decorator = aiocache.cached_stampede if stampede else aiocache.cached
    wrapped = decorator(cache=RedisCache, endpoint=host, port=int(port), ttl=TTL, key_builder=lambda *_, **__: key)(
        loads.awaited
    )
    return wrapped, wrapped.cache.close


async def _tasks(way: Any, url: str, number: int) -> Round:
    loads, latencies = Loads(), []
    call, close = await way(url, uuid.uuid4().hex, loads)

    async def one() -> None:
        began = time.perf_counter()
        await call()
        latencies.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one() for _ in range(number)))
    await close()
    return Round(loads.count, latencies)


def _threads(way: Callable[[str, str, Loads], tuple[Callable[[], object], Any]], url: str, number: int) -> Round:
    loads = Loads()
    call, close = way(url, uuid.uuid4().hex, loads)
    gate = threading.Barrier(number)

    def one(_: int) -> float:
        gate.wait()
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1000

    with ThreadPoolExecutor(number) as pool:
        latencies = list(pool.map(one, range(number)))
    close()
    return Round(loads.count, latencies)


def _kvcache_threads(url: str, key: str, loads: Loads) -> Any:
    store = kvcache.open_store(url)
    cache = kvcache.SharedCache(store, ttl=TTL)

    def close() -> None:
        cache.close()
        store.close()

    return lambda: cache.get(key, loads.plain), close


def _dogpile(url: str, key: str, loads: Loads, *, distributed: bool) -> Any:
    options = {"url": url, "distributed_lock": distributed, "thread_local_lock": False, "redis_expiration_time": TTL}
    region = dogpile.cache.make_region().configure("dogpile.cache.redis", expiration_time=TTL, arguments=options)
    return lambda: region.get_or_create(key, loads.plain), lambda: None


def measured(url: str, scale: Scale) -> dict[tuple[str, str], list[Round]]:
    """Rounds by callers and library."""
    tasks, threads = scale.callers
    found: dict[tuple[str, str], list[Round]] = {}
    awaited: dict[str, Any] = {
        "kvcache": _kvcache,
        "cashews, `lock=True`": lambda *a: _cashews(*a, way="lock"),
        "cashews, `early`": lambda *a: _cashews(*a, way="early"),
        "cashews, `protected` (its default)": lambda *a: _cashews(*a, way="plain"),
        "aiocache, `cached_stampede`": lambda *a: _aiocache(*a, stampede=True),
        "aiocache, `cached`": lambda *a: _aiocache(*a, stampede=False),
    }
    plain: dict[str, Any] = {
        "kvcache": _kvcache_threads,
        "dogpile.cache, `distributed_lock`": lambda *a: _dogpile(*a, distributed=True),
        "dogpile.cache, its own lock": lambda *a: _dogpile(*a, distributed=False),
    }
    for _ in range(scale.repeats):
        for name, way in awaited.items():
            found.setdefault((f"{tasks:,} tasks", name), []).append(asyncio.run(_tasks(way, url, tasks)))
        for name, way in plain.items():
            found.setdefault((f"{threads:,} threads", name), []).append(_threads(way, url, threads))
    return found


def section(scale: Scale, _: Path) -> str:
    """Markdown."""
    with Redis("--maxclients", "4000") as server:
        found = measured(server.store_url(), scale)
    rows, tails = [], {}
    for (callers, name), rounds in found.items():
        hundreds = [statistics.quantiles(one.latencies, n=100, method="inclusive") for one in rounds]
        tails[callers, name] = statistics.median(one[98] for one in hundreds)
        loads = max(one.loads for one in rounds)
        rows.append(
            [
                f"{callers}, {name}",
                str(loads),
                spread([h[49] for h in hundreds], 0),
                spread([h[98] for h in hundreds], 0),
            ]
        )
    ours = max(one.loads for (_, name), rounds in found.items() if name == "kvcache" for one in rounds)
    goals = [verdict("loads of kvcache", ours, 1)]
    for callers in dict.fromkeys(callers for callers, _ in found):
        others = [tail for (who, name), tail in tails.items() if who == callers and name != "kvcache"]
        goals.append(verdict(f"p99 of {callers}, the fastest peer's", tails[callers, "kvcache"], min(others), " ms"))
    return f"""## Many callers at once for one key

All in one process, nothing in hand, on one Redis; a load takes {LOAD * 1000:.0f} ms, which is the least latency. \
Median (least-most) of {scale.repeats}, loads the most; {load()}. \
{", ".join(f"{name} {version(name)}" for name in PEERS)}.

{table(["callers, library", "loads", "p50, ms", "p99, ms"], rows)}

{chr(10).join(goals)}
"""
