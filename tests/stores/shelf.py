"""A `Shelf` in memory with small limits, a clock to be turned by hand, and a way to step in between."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

from kvcache.backends.parted import PartedStore
from kvcache.backends.parts import Entry, Placed, Shelf
from kvcache.clock import Clock
from kvcache.errors import Conflict, NotFound, Unsupported
from kvcache.kvs import ABSENT, Capabilities, Condition, Version

START = 1_700_000_000.0
LIMIT = 200


class HandClock(Clock):
    """Stands still until it is turned. The shelf's clock and the node's at once."""

    def __init__(self) -> None:
        self.time = START
        self._nonces = itertools.count(1)

    def monotonic(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def nonce(self) -> str:
        return f"{next(self._nonces):016x}"


class MemoryShelf(Shelf):
    """`before`: called with (operation, name) ahead of every request, so that a test can step in, or raise."""

    url = "memory-shelf://"
    inline_bytes = 8
    part_bytes = 10

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.entries: dict[str, tuple[bytes, str, bool]] = {}
        self.parts: dict[str, bytes] = {}
        self.before: Callable[[str, str], None] = lambda operation, name: None
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def fetch(self, name: str) -> Entry:
        self.before("fetch", name)
        if name not in self.entries:
            raise NotFound(name, store_time=self.clock.time)
        data, version, is_manifest = self.entries[name]
        return Entry(data, len(data), is_manifest, version, self.clock.time)

    def head(self, name: str) -> Entry:
        return self.fetch(name)

    def place(self, name: str, data: bytes, condition: Condition, *, manifest: bool) -> Placed:
        self.before("place", name)
        assert len(data) <= self.inline_bytes or manifest
        with self._lock:
            held = self.entries[name][1] if name in self.entries else None
            if condition is ABSENT and held is not None:
                raise Conflict(name)
            if isinstance(condition, Version) and held != condition.token:
                raise Conflict(name)
            version = f"v{next(self._versions)}"
            self.entries[name] = (data, version, manifest)
        return Placed(version, self.clock.time)

    def remove(self, name: str, version: str | None = None) -> None:
        self.before("remove", name)
        if version is None or (name in self.entries and self.entries[name][1] == version):
            self.entries.pop(name, None)

    def put_part(self, name: str, data: bytes) -> None:
        self.before("put_part", name)
        self.parts[name] = data

    def get_part(self, name: str) -> bytes | None:
        self.before("get_part", name)
        return self.parts.get(name)

    def drop_part(self, name: str) -> None:
        self.before("drop_part", name)
        self.parts.pop(name, None)

    def names(self, prefix: str) -> Iterator[str]:
        return iter(sorted(name for name in (*self.entries, *self.parts) if name.startswith(prefix)))

    def wait(self, name: str, version: str | None, timeout: float) -> bool:
        raise Unsupported("nobody tells of changes here")

    def close(self) -> None:
        pass


class World:
    """A store, its shelf and the clock of both."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.shelf = MemoryShelf(self.clock)
        self.store = self.another_node()

    def another_node(self) -> PartedStore:
        return PartedStore(self.shelf, Capabilities(conditional_write=True, max_value_bytes=LIMIT), self.clock)

    def once(self, operation: str, action: Callable[[], object], name: str = "") -> None:
        """Runs `action` ahead of the next `operation` on a name that ends with `name`."""

        def before(seen: str, on: str) -> None:
            if seen == operation and on.endswith(name):
                self.shelf.before = lambda *_: None
                action()

        self.shelf.before = before


def fail(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action
