"""What a type checker has to find: every line that ends in `# wrong`, and no other. Checked, never run."""

from __future__ import annotations

import kvcache

store = kvcache.open_store("memory://")
cache = kvcache.SharedCache(store, ttl=30.0)
later = kvcache.AsyncSharedCache(store, ttl=30.0)


@kvcache.cached(cache)
def add(one: int, two: int) -> int:
    return one + two


@kvcache.cached(later)
async def wait(seconds: float) -> str:
    return str(seconds)


async def calls() -> None:
    add("1", 2)  # wrong
    add(1)  # wrong
    add.invalidate(1)  # wrong
    name: str = add(1, 2)  # wrong
    number: int = await wait(1.0)  # wrong
    await wait(seconds="1")  # wrong
    print(name, number)


def values(version: str) -> None:
    store.write("key", "text")  # wrong
    store.write_if("key", b"value", version)  # wrong
    store.write_if("key", b"value", kvcache.ANYWAY)  # wrong
    store.write_if("key", b"value")  # wrong
    cache.get("key")  # wrong
    kvcache.SharedCache(store)  # wrong
    kvcache.SharedCache(store, ttl="30s")  # wrong
    if cache.peek("key").value:  # wrong
        store.version = 1  # wrong
    kvcache.SharedCash(store, ttl=1)  # wrong
