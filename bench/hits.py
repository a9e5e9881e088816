"""The library's own cost: an answer that is in hand, beside what other libraries keep in memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiocache
import dogpile.cache
from cashews import Cache

import kvcache
from bench.page import Scale, load, microseconds, spread, table, verdict

VALUE = {"tag": "v1"}
PEERS = ("cashews", "aiocache", "dogpile.cache")
BOUND = 2.0
"""Microseconds: the goal."""


def _calls(call: Callable[[], object]) -> Callable[[int], float]:
    def run(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            call()
        return time.perf_counter() - began

    return run


def _awaits(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[object]]) -> Callable[[int], float]:
    async def run(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            await call()
        return time.perf_counter() - began

    return lambda number: loop.run_until_complete(run(number))


def measured(scale: Scale) -> dict[str, list[float]]:
    """Microseconds a hit, by library and way."""

    def give(_: Any = None) -> dict[str, str]:
        return VALUE

    async def agive() -> dict[str, str]:
        return VALUE

    shared = kvcache.SharedCache(kvcache.open_store("memory://bench-hits"), ttl=3600)
    ashared = kvcache.AsyncSharedCache(kvcache.open_store("memory://bench-hits"), ttl=3600)
    region = dogpile.cache.make_region().configure("dogpile.cache.memory", expiration_time=3600)
    cashews = Cache()
    cashews.setup("mem://")
    memory = aiocache.SimpleMemoryCache()
    wrapped = cashews(ttl="1h", key="wrapped")(agive)
    cached = aiocache.cached(ttl=3600, key="cached")(agive)
    calls = {
        "kvcache `SharedCache.get(key, load)`": _calls(lambda: shared.get("k", give)),
        "dogpile.cache `get_or_create(key, creator)`": _calls(lambda: region.get_or_create("k", give)),
        "dogpile.cache `get(key)`": _calls(lambda: region.get("k")),
    }
    for call in calls.values():
        call(1)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.run_until_complete(cashews.set("k", VALUE, expire=3600))
        loop.run_until_complete(memory.set("k", VALUE, ttl=3600))
        waits: dict[str, Callable[[], Awaitable[object]]] = {
            "kvcache `AsyncSharedCache.get(key, load)`": lambda: ashared.get("k", give),
            "cashews `@cache(ttl)`": wrapped,
            "cashews `get(key)`": lambda: cashews.get("k"),
            "aiocache `@cached(ttl)`": cached,
            "aiocache `get(key)`": lambda: memory.get("k"),
        }
        for name, wait in waits.items():
            calls[name] = _awaits(loop, wait)
            calls[name](1)
        found = microseconds(calls, scale.calls, max(scale.repeats, 3))
        loop.run_until_complete(cashews.close())
    shared.close()
    ashared.close()
    return found


def section(scale: Scale, _: Path) -> str:
    """Markdown."""
    found = measured(scale)
    least = {name: min(values) for name, values in found.items()}
    ours = {name: value for name, value in least.items() if name.startswith("kvcache")}
    peers = {name: value for name, value in least.items() if name not in ours}
    threads, tasks = ours.values()
    # What answers the same question, an answer or else a load, and what is only a look at a dictionary.
    asks = {name: value for name, value in peers.items() if "get(key)" not in name}
    rows = [
        [name, spread(values), f"{least[name]:.2f}", f"{least[name] / threads:.1f}"]
        for name, values in sorted(found.items(), key=lambda item: statistics.median(item[1]))
    ]
    goals = [
        verdict("a hit of SharedCache", threads, BOUND, " µs"),
        verdict("a hit of AsyncSharedCache", tasks, BOUND, " µs"),
        verdict("against the fastest peer that takes a load as well", max(threads, tasks), min(asks.values()), " µs"),
        verdict("against the fastest bare look-up of a peer", max(threads, tasks), min(peers.values()), " µs"),
    ]
    return f"""## A hit in hand, beside others' memory

Microseconds a call, median (least-most) of {max(scale.repeats, 3)} times {scale.calls:,}, by turns, in one thread; \
{load()}. {", ".join(f"{name} {version(name)}" for name in PEERS)}.

{table(["call", "µs", "least", "times SharedCache"], rows)}

{chr(10).join(goals)}
"""
