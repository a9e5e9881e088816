"""What happened in a run, and whether it was allowed: counts, histograms, and monitors that know the true time.

The monitors judge from facts that no node can see, and share no code with `kvcache.view`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from kvcache.record import Record
from kvcache.simulation.faults import Workload

EPOCH = 1_700_000_000.0
"""Store time at the start of a run."""
SLOTS = 120
"""The run's length is cut into so many slots for the plot."""
AGE_BIN = 0.1
WAIT_BIN = 0.001
EXAMPLES = 20
"""How many violations are told in words; all are counted."""


class Call(NamedTuple):
    """An upstream call. `shared`: under a claim; else made by a node for itself, because the store was down."""

    started: float
    node: str
    shared: bool


@dataclass(slots=True)
class Ledger:
    """All of one run. Times are true ones, in seconds from its start; `ages` and `waits` count by bins.

    `failed_calls`, `takeovers`: when a shared call failed, and when a lock was claimed that its leader had lost.
    `replaced_in`: how long it took until a crashed leader's lock was claimed by another. `lag`: the longest that a
    reply of the store was under way to a node that was awake.
    """

    workload: Workload
    requests: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    ages: Counter[int] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    failed_calls: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    leaderless: list[float] = field(default_factory=list)
    replaced_in: list[float] = field(default_factory=list)
    from_hand: int = 0
    without_answer: int = 0
    lag: float = 0.0
    born: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=lambda: [0.0] * SLOTS)
    request_slots: list[int] = field(default_factory=lambda: [0] * SLOTS)

    def slot(self, time: float) -> int:
        return min(int(time / self.workload.seconds * SLOTS), SLOTS - 1)

    @property
    def tolerance(self) -> float:
        """How wrong a node's idea of store time can be: what replies took, the store's granularity, clock rates."""
        workload = self.workload
        drift = 4 * workload.clock_rate * max(workload.ttl * 2, workload.lease * 2)
        return self.lag + workload.date_resolution + drift + 1e-3

    def violated(self, rule: str, time: float, what: str) -> None:
        self.violations[rule] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{time:.3f} s: {rule}: {what}")

    # -- what lands in the store -----------------------------------------------------------------------------------

    def wrote(
        self, before: Record | None, after: Record, *, time: float, lease_since: float, by: str, unconditional: bool
    ) -> None:
        """I1, I2, I5. `lease_since`: when the write that holds the lock of `before` was sent, in true time."""
        if unconditional:
            self.violated("I1", time, f"a write of {by} landed although its condition did not hold")
        holder = before.lock.by if before is not None and before.lock is not None else None
        if after.lock is None:
            self.leaderless.clear()
        if after.lock is None or holder == by:
            if holder != by:
                self.violated("I2", time, f"{by} changed the record without holding the lock")
            return
        if before is not None:
            self._claimed(before, time, lease_since, by)
        if self.leaderless:
            self.replaced_in.append(time - self.leaderless.pop())
            self.leaderless.clear()

    def _claimed(self, before: Record, time: float, lease_since: float, by: str) -> None:
        workload, tolerance = self.workload, self.tolerance
        if before.lock is not None:
            lease = before.lock.lease
            if lease is None:
                lease = min(max(2 * workload.ttl, 30.0), 300.0)
            self.takeovers.append(time)
            if time - lease_since < lease - tolerance:
                self.violated("I5", time, f"{by} took over a lock {time - lease_since:.3f} s old")
        failure, answer = before.failure, before.answer
        if failure is not None:
            left = failure.retry_at - EPOCH - time
            if left > tolerance:
                self.violated("I5", time, f"{by} claims {left:.3f} s before the back-off is over")
        elif answer is not None:
            age = time - self.born[answer.value]
            if age < workload.ttl * (1 - workload.refresh_ahead) - tolerance:
                self.violated("I5", time, f"{by} claims although the answer is {age:.3f} s old")

    # -- what callers get ------------------------------------------------------------------------------------------

    def served(self, time: float, value: int) -> None:
        """A caller gets the answer `value`."""
        age = time - self.born[value]
        self.ages[int(age / AGE_BIN)] += 1
        slot = self.slot(time)
        if age > self.worst[slot]:
            self.worst[slot] = age
        limit = self.workload.max_stale
        if limit is not None and age > max(limit, self.workload.ttl) + self.tolerance:
            self.violated("I7", time, f"an answer {age:.3f} s old was given")

    def waited(self, seconds: float) -> None:
        self.waits[int(seconds / WAIT_BIN)] += 1
