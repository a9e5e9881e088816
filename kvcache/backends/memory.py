"""Values in the memory of this process: `memory://`, `memory://name?max-size=64MiB`.

It keeps every promise of the contract, so that users can test with it. The same name is the same store for as long as
the process lives; `memory://` is the one without a name. What has been used least recently goes first when `max-size`
is reached: an evicted key is absent, exactly as if it had been deleted, and its versions never come back.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kvcache.errors import Conflict, NotFound, TooLarge
from kvcache.kvs import (
    ABSENT,
    ANYWAY,
    AsyncAccess,
    Capabilities,
    Condition,
    Progress,
    Source,
    Stat,
    Store,
    Stored,
    Version,
    check_key,
)
from kvcache.newfile import replacing
from kvcache.url import DEFAULT_MAX_SIZE, StoreURL

_BUFFER: Final = 1024 * 1024


def open(url: StoreURL) -> MemoryStore:
    """The store of `memory://name?max-size=64MiB`. InvalidURL, also where it is open with another size."""
    url.reject_unknown(())
    if url.user or url.password or url.port:
        raise url.invalid("name", url.redacted, "memory:// or memory://name")
    name = url.host + url.path
    max_size = url.take_size("max-size", None)
    with _named_lock:
        store = _named.get(name)
        if store is None:
            store = _named[name] = MemoryStore(DEFAULT_MAX_SIZE if max_size is None else max_size, name=name)
        elif max_size not in (None, store.max_size):
            raise url.invalid("max-size", url.params["max-size"], f"{store.max_size}, with which it was opened first")
    return store


@dataclass(frozen=True, slots=True)
class _Entry:
    data: bytes
    version: Version
    modified: float


class MemoryStore(Store):
    """At most `max_size` bytes of keys and values. A value that alone is larger is TooLarge."""

    def __init__(
        self, max_size: int = DEFAULT_MAX_SIZE, *, name: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` tells the store time, in seconds since the Unix epoch."""
        self.url = f"memory://{name}"
        self.max_size = max_size
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._size = 0
        self._writes = 0
        self._life = secrets.token_hex(8)  # no other store, and no other process, has the same versions
        self._changed = threading.Condition()  # protects all of the above
        with _named_lock:
            _alive.add(self)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            conditional_write=True, scope="process", store_time=True, watch=True, max_value_bytes=self.max_size
        )

    def read_versioned(self, key: str) -> Stored:
        entry = self._use(key)
        return Stored(entry.data, entry.version, self._clock())

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        check_key(key)
        if _cost(key, data) > self.max_size:
            raise TooLarge(f"{self.url}: {key}: {len(data)} bytes do not fit into {self.max_size}")
        with self._changed:
            old = self._entries.get(key)
            if condition is not ANYWAY and (old.version if old else ABSENT) != condition:
                raise Conflict(key)
            self._writes += 1
            entry = _Entry(bytes(data), Version(f"{self._life}-{self._writes}"), self._clock())
            self._remove(key)
            self._entries[key] = entry
            self._size += _cost(key, data)
            while self._size > self.max_size:
                self._remove(next(iter(self._entries)))
            self._changed.notify_all()
            return entry.version

    def delete(self, key: str) -> None:
        check_key(key)
        with self._changed:
            self._remove(key)
            self._changed.notify_all()

    def list(self, prefix: str = "") -> Iterator[str]:
        with self._changed:
            return iter(sorted(key for key in self._entries if key.startswith(prefix)))

    def stat(self, key: str) -> Stat:
        check_key(key)
        with self._changed:
            entry = self._find(key)
            return Stat(len(entry.data), entry.version, entry.modified)

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        check_key(key)
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return self.upload(key, file, progress)
        return self.write(key, self._collect(key, source, progress))

    def _collect(self, key: str, source: BinaryIO, progress: Progress | None) -> bytes:
        data = bytearray()
        while chunk := source.read(_BUFFER):
            data += chunk
            if _cost(key, data) > self.max_size:
                raise TooLarge(f"{self.url}: {key}: more than {self.max_size} bytes")
            if progress is not None:
                progress(len(data))
        return bytes(data)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        entry = self._use(key)
        with replacing(path) as file:
            for start in range(0, len(entry.data), _BUFFER):
                file.write(entry.data[start : start + _BUFFER])
                if progress is not None:
                    progress(min(start + _BUFFER, len(entry.data)))
        return Stat(len(entry.data), entry.version, entry.modified)

    def native_async(self) -> AsyncAccess:
        from kvcache.access import AtOnce  # brings asyncio along

        return AtOnce(self)

    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        check_key(key)

        def changed() -> bool:
            entry = self._entries.get(key)
            return (entry.version if entry else None) != version

        with self._changed:
            return self._changed.wait_for(changed, timeout)

    def _use(self, key: str) -> _Entry:
        check_key(key)
        with self._changed:
            entry = self._find(key)
            self._entries.move_to_end(key)
            return entry

    # -- under the lock ---------------------------------------------------------------------------------------------

    def _find(self, key: str) -> _Entry:
        try:
            return self._entries[key]
        except KeyError:
            raise NotFound(key, store_time=self._clock()) from None

    def _remove(self, key: str) -> None:
        if entry := self._entries.pop(key, None):
            self._size -= _cost(key, entry.data)


def _cost(key: str, data: bytes | bytearray) -> int:
    return len(key.encode()) + len(data)


_named: dict[str, MemoryStore] = {}
_named_lock = threading.RLock()

# A process forked while another thread is in a store gets a copy of it, which must be in order and not locked for ever.
_alive: weakref.WeakSet[MemoryStore] = weakref.WeakSet()
_held: list[threading.Condition] = []


def _before_fork() -> None:
    _named_lock.acquire()
    _held.extend(store._changed for store in list(_alive))
    for condition in _held:
        condition.acquire()


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _named_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
