"""The invariants of the protocol as judges of what happens in a small world.

They judge from facts that the nodes cannot see (when an answer was really made, who really wrote what stands in the
store), and share no code with `kvcache.view`, whose decisions they judge.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvcache.events import Give
from kvcache.kvs import ABSENT, Condition
from kvcache.phases import Flight, Loading
from kvcache.record import Answer, Record
from kvcache.view import Held, Policy

EPS = 1e-3
"""Seconds by which a time may be off: records keep microseconds."""


class Violation(AssertionError):
    """An invariant of the protocol does not hold."""


@dataclass(frozen=True, slots=True)
class Made:
    """An answer of the upstream, and the store time at which it was really given."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are no record."""

    name: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What the store holds, the name of the write that made this state of it, and its writer ("": a stranger)."""

    record: Record | Garbage | None
    state: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A write on its way. `on`: the state of the store that its writer decided on; `name` stays when it is resent."""

    record: Record
    match: Condition
    by: str
    name: str
    on: str
    claim: str


def judge_write(before: Cell, sent: Sent, at: float, policy: Policy) -> None:
    """I1, I2, I5: a write is about to land at store time `at`."""
    last = before.record
    held = isinstance(last, Record) and last.lock is not None and before.by == sent.by
    if sent.record.lock is None and not held:
        raise Violation("I2: a node publishes without holding the lock")
    # Whoever deletes a record takes the protocol's memory with it: absent is absent, however often.
    if sent.match is not ABSENT and sent.on != before.state:
        raise Violation("I1/I2: a write lands on a state of the record that its writer never saw")
    if not held and isinstance(last, Record):
        _judge_claim(last, at, policy)


def _judge_claim(last: Record, at: float, policy: Policy) -> None:
    """I5: the record `last` is claimed: may the upstream be called at all?"""
    lock, failure = last.lock, last.failure
    if lock is not None and lock.lease is not None and at - lock.locked_at < lock.lease - EPS:
        raise Violation("I5: a live lock is taken over")
    if failure is not None and at < failure.retry_at - EPS:
        raise Violation("I5: the upstream is to be called inside its back-off")
    if last.answer is not None and at - last.answer.fetched_at < policy.ttl * (1 - policy.refresh_ahead) - EPS:
        raise Violation("I5: the upstream is to be called while its answer is fresh")


def judge_load(flight: Flight, *, won: bool) -> None:
    """I1, I5: the upstream is called. A node that cannot reach the store may call it for itself alone."""
    phase = flight.phase
    assert isinstance(phase, Loading), "only a loading node calls the upstream"
    if phase.claim is not None and not won:
        raise Violation("I1: the upstream is called on a claim that never landed")


def judge_give(last: float, outcome: Give, at: float, policy: Policy) -> float:
    """I3, I7, and what "fresh" means: a caller is given `outcome`. The time of the newest answer given so far."""
    made = made_of(outcome.answer)
    age = at - made.at
    if made.at < last:
        raise Violation("I3: a caller is given an older answer than was given before")
    if policy.max_stale is not None and age > max(policy.max_stale, policy.ttl) + EPS:
        raise Violation(f"I7: an answer of {age:g} s is returned, max-stale is {policy.max_stale:g} s")
    if outcome.state == "fresh" and age >= policy.ttl + EPS:
        raise Violation(f"an answer of {age:g} s is called fresh, the ttl is {policy.ttl:g} s")
    return max(last, made.at)


def judge_wait(held: Held, at: float, policy: Policy) -> None:
    """I4: a caller is kept waiting."""
    if held.answer is None:
        return
    age = at - made_of(held.answer).at
    if policy.max_stale is None or age < max(policy.ttl, policy.max_stale) - EPS:
        raise Violation("I4: a caller waits although there is a usable answer")


def made_of(answer: Answer) -> Made:
    """Values are what the upstream of the small world made."""
    assert isinstance(answer.value, Made)
    return answer.value
