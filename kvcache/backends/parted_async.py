"""A `PartedStore` for asyncio. Nobody who waits keeps anybody from reading or writing.

The loop's own thread pool is no place for this: it has a handful of threads, the application's plain loads run there
too, and a few followers that wait for a leader in it would keep that very leader from publishing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from kvcache.backends.parts import Shelf, check, split
from kvcache.errors import StoreUnavailable
from kvcache.kvs import Match, Store, Stored, Version

T = TypeVar("T")

REQUESTS: Final = 8
"""Requests that are under way at the same time; each is over within the store's `timeout`."""
WAITS: Final = 32
"""Threads that wait for a change at the same time. Who comes when all are taken is told to poll."""


class PartedAccess:
    """Requests in a few threads that do nothing else; each wait in a thread of its own, up to `WAITS` of them."""

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self._store = store
        self._shelf = shelf
        self._requests = ThreadPoolExecutor(REQUESTS, thread_name_prefix="kvcache-store")
        self._waits = threading.BoundedSemaphore(WAITS)

    async def read_versioned(self, key: str) -> Stored:
        return await self._requested(lambda: self._store.read_versioned(key))

    async def write_if(self, key: str, data: bytes, match: Match) -> Version:
        return await self._requested(lambda: self._store.write_if(key, data, match))

    async def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        """As `Store.wait_for_change`; StoreUnavailable also where too many wait already.

        Cancelling it leaves its thread waiting until the time-out.
        """
        if not self._waits.acquire(blocking=False):
            raise StoreUnavailable(f"{self._store.url}: {WAITS} wait for changes already")
        told: Future[bool] = Future()

        def wait() -> None:
            try:
                answer = self._store.wait_for_change(key, version, timeout)
            except BaseException as error:  # it is the waiting coroutine's, whatever it is
                told.set_exception(error)
            else:
                told.set_result(answer)
            finally:
                self._waits.release()

        told.set_running_or_notify_cancel()  # from here on, a cancelled coroutine can't make `set_result` fail
        # A daemon, unlike the threads of a pool: nobody waits for the waiting when the process ends.
        threading.Thread(target=wait, name="kvcache-wait", daemon=True).start()
        return await asyncio.wrap_future(told)

    async def _requested(self, request: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._requests, request)

    async def _has(self, key: str, version: Version | None) -> bool:
        """Whether the key still has this version (None: is absent)."""
        own = split(version)[0] if version else None
        return await self._requested(lambda: self._shelf.version_of(check(key))) == own
