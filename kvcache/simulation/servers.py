"""What a simulated fleet talks to: one faulty store, and one upstream."""

from __future__ import annotations

import random
from collections.abc import Iterable

from kvcache import events as ev
from kvcache.kvs import ABSENT, Match, Version
from kvcache.record import Record
from kvcache.simulation.faults import Fault, Workload, strength
from kvcache.simulation.ledger import EPOCH, Ledger


def named(faults: Iterable[Fault], name: str) -> list[Fault]:
    return [fault for fault in faults if fault.name == name]


class FaultyStore:
    """One record, moved only by conditional writes. Each answer is an input of the protocol."""

    def __init__(self, workload: Workload, faults: Iterable[Fault], chance: random.Random, ledger: Ledger) -> None:
        faults = tuple(faults)
        self.record: Record | None = None
        self.version: Version | None = None
        self._ledger = ledger
        self._chance = chance
        self._latency = workload.store_latency
        self._resolution = workload.date_resolution
        self._moves = 0
        self._lease_since = 0.0  # when the write that took, or renewed, the lock was sent
        self._last_write = -1e9
        self._down = named(faults, "store-down")
        self._slow = named(faults, "store-slow")
        self._lost = named(faults, "lost")
        self._writes = named(faults, "store-writes")
        self._careless = named(faults, "store-careless")

    def is_down(self, time: float, luck: float) -> bool:
        """`luck`: the node's own constant draw, so that a partial outage cuts off the same nodes throughout."""
        return bool(self._down) and luck < strength(self._down, time)

    def travel(self, time: float) -> tuple[float, float]:
        """Seconds to the store and back."""
        draw = self._chance.lognormvariate
        slow = strength(self._slow, time) if self._slow else 0.0
        return self._latency / 2 * draw(0.0, 0.5) + slow / 2, self._latency / 2 * draw(0.0, 0.5) + slow / 2

    def loses(self, time: float) -> str:
        """`request`, `reply` or ``: which of the two gets lost."""
        if not self._lost:
            return ""
        draw, most = self._chance.random(), strength(self._lost, time)
        return "" if draw >= most else "request" if draw < most / 2 else "reply"

    def date(self, time: float) -> float:
        """Store time, as the store's answers tell it."""
        exact = EPOCH + time
        return exact - exact % self._resolution if self._resolution else exact

    def read(self) -> ev.Found | ev.Missing:
        if self.record is None or self.version is None:
            return ev.Missing()
        return ev.Found(self.record, self.version)

    def write(self, record: Record, match: Match, *, time: float, sent_at: float, by: str) -> ev.Input:
        """Carries out a conditional write that node `by` sent at `sent_at`."""
        if self._writes:
            rate = strength(self._writes, time)
            if rate and time - self._last_write < 1 / rate:
                return ev.Throttled(None)
        holds = self.version is None if match is ABSENT else self.version == match
        if not holds and not (self._careless and self._chance.random() < strength(self._careless, time)):
            return ev.Refused()
        self._ledger.wrote(
            self.record, record, time=time, lease_since=self._lease_since, by=by, unconditional=not holds
        )
        if record.lock is not None:
            self._lease_since = sent_at
        self._last_write = time
        self._moves += 1
        self.record, self.version = record, Version(str(self._moves))
        return ev.Landed(self.version)

    def led_by(self, name: str) -> bool:
        """Does the record say that node `name` leads?"""
        return self.record is not None and self.record.lock is not None and self.record.lock.by == name


class Upstream:
    """Answers with the number of the call, late, or not at all."""

    def __init__(self, workload: Workload, faults: Iterable[Fault], chance: random.Random) -> None:
        faults = tuple(faults)
        self._chance = chance
        self._latency = workload.upstream_latency
        self._down = named(faults, "upstream-down")
        self._slow = named(faults, "upstream-slow")
        self._limits = named(faults, "rate-limit")
        self._taken = [0] * len(self._limits)

    def call(self, time: float) -> tuple[float, ev.LoadFailed | None]:
        """Seconds until the upstream answers, and how it fails, None where it does not."""
        seconds = self._latency * self._chance.lognormvariate(0.0, 0.5)
        if self._slow:
            seconds += strength(self._slow, time)
        for i, limit in enumerate(self._limits):
            if limit.on(time):
                if self._taken[i] >= limit.value:
                    return seconds, ev.LoadFailed("rate-limited", "403", min(limit.end - time, 3600.0))
                self._taken[i] += 1
        if self._down and self._chance.random() < strength(self._down, time):
            return seconds, ev.LoadFailed("upstream", "503")
        return seconds, None
