"""Asyncio's ways to a store: in its thread pool, at once, or on the loop that the store's client lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kvcache.errors import Unsupported
from kvcache.kvs import Match, Store, Stored, Version

T = TypeVar("T")


class InThreads:
    """For a store that only knows how to block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read_versioned(self, key: str) -> Stored:
        return await asyncio.to_thread(self._store.read_versioned, key)

    async def write_if(self, key: str, data: bytes, match: Match) -> Version:
        return await asyncio.to_thread(self._store.write_if, key, data, match)

    async def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        return await asyncio.to_thread(self._store.wait_for_change, key, version, timeout)


class AtOnce(InThreads):
    """For a store that never blocks for longer than a dictionary takes: no thread, but for waiting."""

    async def read_versioned(self, key: str) -> Stored:
        return self._store.read_versioned(key)

    async def write_if(self, key: str, data: bytes, match: Match) -> Version:
        return self._store.write_if(key, data, match)


class OnLoop:
    """For a store whose coroutines run on an event loop of their own (fsspec's), whatever loop the caller's is."""

    def __init__(
        self,
        loop: Callable[[], asyncio.AbstractEventLoop],
        read_versioned: Callable[[str], Coroutine[Any, Any, Stored]],
        write_if: Callable[[str, bytes, Match], Coroutine[Any, Any, Version]],
    ) -> None:
        self._loop, self._read, self._write = loop, read_versioned, write_if

    async def read_versioned(self, key: str) -> Stored:
        return await self._there(self._read(key))

    async def write_if(self, key: str, data: bytes, match: Match) -> Version:
        return await self._there(self._write(key, data, match))

    async def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        raise Unsupported("this store cannot say that a key changed")

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop()))
