"""Redis and Valkey for asyncio: requests as for any `PartedStore`, and waiting that costs no thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from kvcache.backends.parted_async import PartedAccess
from kvcache.backends.parts import Shelf, check
from kvcache.backends.redis_watch import Ear
from kvcache.kvs import Store, Version

Listen: TypeAlias = Callable[[str, Callable[[], None]], AbstractContextManager[Ear]]
"""`RedisShelf.listen`."""


class RedisAccess(PartedAccess):
    """Who waits costs no thread: the one that listens to Redis wakes them all."""

    def __init__(self, store: Store, shelf: Shelf, listen: Listen) -> None:
        super().__init__(store, shelf)
        self._listen = listen

    async def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        loop, rang = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(rang.set)

        deadline = loop.time() + timeout
        with self._listen(check(key), ring) as ear:
            while (left := deadline - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(rang.wait(), min(left, ear.patience))
                rang.clear()
                if not await self._has(key, version):
                    return True
        return False
