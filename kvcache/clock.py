"""The only doors to time and chance."""

from __future__ import annotations

import random
import secrets
import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Now:
    """One look through the doors, handed to every decision.

    `store`: store time in seconds since the Unix epoch. `mono`: this node's monotonic clock in seconds. `chance`: a
    fresh draw from [0, 1). `nonce`: a fresh name, unique in the fleet.
    """

    store: float
    mono: float
    chance: float
    nonce: str


class Clock:
    """The machine's clocks and its randomness; a simulation hands in its own."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def chance(self) -> float:
        return random.random()

    def nonce(self) -> str:
        return secrets.token_hex(8)


SYSTEM = Clock()


@dataclass(slots=True)
class StoreClock:
    """Store time, kept as an offset to the monotonic clock and corrected by every answer of the store.

    `resolution` is the granularity of the store's clock in seconds: a `Date` header of 12:00:00 says that it is
    somewhere in [12:00:00, 12:00:01), and was so at some moment between question and answer. The estimate is moved only
    as far as it must be to agree with that, so an answer that was long under way does not spoil what a quick one told.
    Without any answer yet, or for a store that does not tell the time, it is the local wall clock.
    """

    clock: Clock = SYSTEM
    resolution: float = 0.0
    _offset: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)  # protects _offset between observe's read and write

    def observe(self, store_time: float | None, asked_at: float) -> None:
        """`store_time` has just come in from the store, which was asked at `asked_at` on the monotonic clock."""
        if store_time is None:
            return
        mono = self.clock.monotonic()
        with self._lock:
            estimate = store_time if self._offset is None else mono + self._offset
            estimate = min(max(estimate, store_time), store_time + self.resolution + (mono - asked_at))
            self._offset = estimate - mono

    def at(self, mono: float) -> float:
        """Store time when the monotonic clock shows `mono`."""
        offset = self._offset
        return self.clock.wall() - self.clock.monotonic() + mono if offset is None else mono + offset

    def now(self) -> Now:
        mono = self.clock.monotonic()
        return Now(self.at(mono), mono, self.clock.chance(), self.clock.nonce())
