"""Counts the requests of a check, and stops it where it has had enough of them, or of time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from kvcache.errors import InvalidKey, StoreUnavailable
from kvcache.kvs import Capabilities, Condition, Match, Progress, Source, Stat, Store, Stored, Version

T = TypeVar("T")

PART: Final = 512 * 1024
"""Bytes. Each such piece of a value counts as a request: some stores keep large values in pieces of that size."""
LARGEST: Final = 9 * 1024 * 1024
"""Bytes that an upload is taken to carry where its source does not tell: the largest that the checks upload."""
PAGE: Final = 1000
"""Keys that a store lists in one request."""


class Spent(StoreUnavailable):
    """The check has had all the requests, or all the time, that it was given. Nothing can be said of the store."""


class Metered(Store):
    """A store that counts what is asked of it.

    One call of a method counts as one request, with one more for every 512 KiB that it carries and for every 1,000
    keys that it lists. What a client sends again after a failure is not seen here, and not counted.
    """

    def __init__(self, inner: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.inner = inner
        self.url = inner.url
        self.requests = 0
        self.written: set[str] = set()
        """Keys that were written since `allow` and not deleted again."""
        self.exhausted = ""
        """Why the last check was stopped, if it was."""
        self._limit = 0
        self._deadline = 0.0
        self._clock = clock
        self._lock = threading.Lock()  # of all the above: checks use threads

    def allow(self, requests: int, deadline: float) -> None:
        """Begins a new check: that many requests, until `deadline` by the clock."""
        with self._lock:
            self.requests, self.exhausted, self.written = 0, "", set()
            self._limit, self._deadline = requests, deadline

    def _ask(self, call: Callable[[], T], writes: str | None = None, removes: str | None = None) -> T:
        with self._lock:
            was_written = removes in self.written
            self.written.discard(removes or "")
            # What was written has still to be removed: that must always be within the limit.
            if self.requests + len(self.written) >= self._limit:
                self.exhausted = f"stopped after {self._limit} requests, the most that this check may cost"
            elif self._clock() >= self._deadline:
                self.exhausted = "stopped: the time for the whole examination is over"
            if self.exhausted:
                if removes is not None and was_written:
                    self.written.add(removes)
                raise Spent(self.exhausted)
            self.requests += 1
            if writes is not None:
                self.written.add(writes)
        try:
            return call()
        except InvalidKey:
            if writes is not None:
                self.written.discard(writes)
            raise

    def charge(self, requests: int) -> None:
        """Counts requests that others make for the check, past this object."""
        with self._lock:
            self.requests += requests

    def _carried(self, size: int) -> None:
        self.charge(size // PART)

    # -- the port ---------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def read(self, key: str) -> bytes:
        data = self._ask(lambda: self.inner.read(key))
        self._carried(len(data))
        return data

    def read_versioned(self, key: str) -> Stored:
        stored = self._ask(lambda: self.inner.read_versioned(key))
        self._carried(len(stored.data))
        return stored

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        version = self._ask(lambda: self.inner.put(key, data, condition), key)
        self._carried(len(data))
        return version

    def write(self, key: str, data: bytes) -> Version:
        version = self._ask(lambda: self.inner.write(key, data), key)
        self._carried(len(data))
        return version

    def write_if(self, key: str, data: bytes, match: Match) -> Version:
        version = self._ask(lambda: self.inner.write_if(key, data, match), key)
        self._carried(len(data))
        return version

    def delete(self, key: str) -> None:
        self._ask(lambda: self.inner.delete(key), removes=key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._counted(self._ask(lambda: self.inner.list(prefix)))

    def _counted(self, keys: Iterator[str]) -> Iterator[str]:
        for number, key in enumerate(keys, 1):
            if number % PAGE == 0:
                self._ask(lambda: None)
            yield key

    def stat(self, key: str) -> Stat:
        return self._ask(lambda: self.inner.stat(key))

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        size = Path(source).stat().st_size if isinstance(source, str | os.PathLike) else LARGEST
        version = self._ask(lambda: self.inner.upload(key, source, progress), key)
        self._carried(size)
        return version

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        stat = self._ask(lambda: self.inner.download(key, path, progress))
        self._carried(stat.size)
        return stat

    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        return self._ask(lambda: self.inner.wait_for_change(key, version, timeout))
