"""A user's program, which the type checkers have nothing to say about. Checked, never run."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import kvcache
from kvcache import events


@dataclasses.dataclass
class Release:
    tag: str


store = kvcache.open_store("memory://")
cache = kvcache.SharedCache(store, ttl=30.0, max_stale=timedelta(hours=1), lease=None, refresh_ahead=0.5)
later = kvcache.AsyncSharedCache(store, ttl=timedelta(seconds=30))


def values() -> None:
    with kvcache.open_store("file:///srv/values?locking=flock") as values:
        assert_type(values.read("key"), bytes)
        assert_type(values.write("key", b"value"), kvcache.Version)
        assert_type(values.write_if("key", b"value", kvcache.ABSENT), kvcache.Version)
        assert_type(values.list(), Iterator[str])
        stored = values.read_versioned("key")
        assert_type(stored.version, kvcache.Version)
        assert_type(stored.store_time, float | None)
        values.write_if("key", b"value", stored.version)
        assert_type(values.stat("key").size, int)
        values.upload("key", Path("file"), progress=lambda done: print(done))
        values.download("key", "file")
        assert_type(values.capabilities.conditional_write, bool)


def load(ctx: kvcache.LoadContext) -> object:
    assert_type(ctx.deadline, float)
    if ctx.validator == "etag":
        return kvcache.NOT_MODIFIED
    if ctx.previous is None:
        raise kvcache.UpstreamError("503", retry_after=60.0, authoritative=False)
    return kvcache.Loaded({"tag": "v1"}, validator="etag")


async def aload(ctx: kvcache.LoadContext) -> list[str]:
    return [str(ctx.previous)]


def watch(event: events.Event) -> None:
    if isinstance(event, events.UpstreamCalled):
        assert_type(event.duration, float)


def answers() -> None:
    result = cache.get("key", load, timeout=1.0)
    assert_type(result, kvcache.Result)
    assert_type(result.age, float)
    assert_type(result.refreshed, bool)
    if result.state == "stale-on-error":
        print(result.value)
    assert_type(cache.peek("key"), kvcache.Result | None)
    cache.invalidate("key")
    kvcache.SharedCache(store, ttl=1, on_event=watch).close()


async def awaited() -> None:
    async with later:
        assert_type(await later.get("key", load), kvcache.Result)
        assert_type(await later.get("key", aload), kvcache.Result)
        assert_type(await later.peek("key"), kvcache.Result | None)


@kvcache.cached(cache, key="releases:{owner}/{repo}")
def releases(owner: str, repo: str = "app") -> list[Release]:
    return [Release(f"{owner}/{repo}")]


@kvcache.cached(later, compress_above=10_000)
async def size(path: str, *, times: int = 1) -> int:
    return len(path) * times


async def decorated() -> None:
    assert_type(releases("owner", repo="repo"), list[Release])
    assert_type(releases.key("owner"), str)
    assert_type(releases.peek("owner"), kvcache.Result | None)
    releases.invalidate("owner", "repo")
    call: Awaitable[int] = size("path", times=2)
    assert_type(await call, int)
    assert_type(await size.peek("path"), kvcache.Result | None)
    await size.invalidate("path")


class Wrapped(kvcache.Store):
    """A store of one's own."""

    def __init__(self, inner: kvcache.Store) -> None:
        self._inner = inner

    @property
    def capabilities(self) -> kvcache.Capabilities:
        return self._inner.capabilities

    def read_versioned(self, key: str) -> kvcache.Stored:
        return self._inner.read_versioned(key)

    def put(self, key: str, data: bytes, condition: kvcache.Condition) -> kvcache.Version:
        return self._inner.put(key, data, condition)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._inner.list(prefix)

    def stat(self, key: str) -> kvcache.Stat:
        return self._inner.stat(key)

    def upload(self, key: str, source: kvcache.Source, progress: kvcache.Progress | None = None) -> kvcache.Version:
        return self._inner.upload(key, source, progress)

    def download(self, key: str, path: Any, progress: kvcache.Progress | None = None) -> kvcache.Stat:
        return self._inner.download(key, path, progress)


kvcache.SharedCache(Wrapped(store), ttl=1)


def failures() -> None:
    try:
        cache.get("key", load)
    except kvcache.UpstreamUnavailable as error:
        assert_type(error.retry_in, float)
    except kvcache.NotFound as error:
        assert_type(error.store_time, float | None)
    except kvcache.KVCacheError:
        pass
