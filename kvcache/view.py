"""What one node knows about one key, and what the record it has just read means to it. Pure.

Hosts' clocks are not compared with one another: ages are store time, bounded below by how long this node has known
the answer on its own monotonic clock. So a date in the future counts as "now" and makes nothing fresh, and no lock
live, for longer than one ttl, or one lease, from when this node first saw it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from kvcache.clock import Now
from kvcache.events import Fail, Give, Outcome
from kvcache.kvs import Version
from kvcache.record import Answer, Failure, Lock, Record

MAX_RETRY_AFTER = 3600.0
"""Longest Retry-After believed, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of one cache, all in seconds. `node` names this process in the records that it locks."""

    ttl: float
    max_stale: float | None = None
    lease: float = 30.0
    refresh_ahead: float = 0.0
    load_timeout: float = 300.0
    background: bool = False
    node: str = ""

    @property
    def foreign_lease(self) -> float:
        """The lease of a claim that names none: Dewy v2's, twice the ttl within 30 s and 5 min."""
        return min(max(2 * self.ttl, 30.0), 300.0)

    @property
    def spread(self) -> float:
        """J of the protocol: what the nodes' next looks at an expired answer are spread over."""
        return self.ttl / 10

    def due_age(self, chance: float) -> float:
        """The age of an answer at which this node looks again; drawn once per node and answer."""
        if self.refresh_ahead > 0:
            return self.ttl * (1 - self.refresh_ahead * (1 - chance))
        longest = self.ttl + self.spread
        if self.max_stale is not None:
            longest = min(longest, max(self.ttl, self.max_stale))
        return self.ttl + chance * (longest - self.ttl)

    def backoff(self, count: int, chance: float, retry_after: float | None) -> float:
        """Seconds for which nobody calls after the `count`-th failure in a row."""
        base, cap = min(self.ttl, 5.0), max(self.ttl, 300.0)
        most = cap if count > 60 else min(cap, base * 2.0 ** (count - 1))
        wait = most * (0.5 + 0.5 * chance)
        if retry_after is not None:
            wait = max(wait, min(retry_after, MAX_RETRY_AFTER) * (1 + 0.1 * chance))
        return wait


@dataclass(frozen=True, slots=True)
class Held:
    """What this node has in hand for one key.

    `as_of` is when the answer was fetched, in store time and never in the future of the look that found it; `since`
    is when this node first saw it, and `version_since` the record's version, on its monotonic clock. Until `look_at`
    (monotonic) nothing is asked of the store: `age_then` was the answer's age at `then`, `on_error` says why it is
    stale. `called_at`: when this node last called the upstream by itself, the store being down. `own`: it dated the
    answer itself, by a clock that may never have seen the store's; what is certain is how long it has been in hand.
    """

    answer: Answer | None = None
    as_of: float = 0.0
    since: float = 0.0
    due_age: float = 0.0
    invalidated: bool = False
    failure: Failure | None = None
    version: Version | None = None
    version_since: float = 0.0
    look_at: float = -math.inf
    age_then: float = 0.0
    then: float = 0.0
    retry_at: float = -math.inf
    called_at: float = -math.inf
    on_error: bool = False
    own: bool = False

    def age(self, now: Now) -> float:
        if self.own:
            return max(now.mono - self.since, 0.0)
        return max(now.store - self.as_of, now.mono - self.since, 0.0)

    def anchored(self, now: Now) -> float:
        """`as_of` on the store's clock as it goes now: what has been known for t seconds is at least t old."""
        known = now.store - (now.mono - self.since)
        return known if self.own else min(self.as_of, known)

    def fresh(self, policy: Policy, age: float) -> bool:
        return self.answer is not None and age < policy.ttl and not self.invalidated

    def usable(self, policy: Policy, age: float) -> bool:
        """May the answer be served at all? Not beyond max-stale, nor against the upstream's considered refusal."""
        if self.answer is None:
            return False
        if age < policy.ttl:
            return True
        refused = self.failure is not None and self.failure.authoritative
        return not refused and (policy.max_stale is None or age <= policy.max_stale)


NOTHING = Held()


def hit(policy: Policy, held: Held, mono: float) -> Outcome | None:
    """The answer that costs no request, or None when the store has to be looked at."""
    if mono >= held.look_at:
        return None
    age = held.age_then + (mono - held.then)
    if held.answer is not None:
        if age < policy.ttl and not held.invalidated:
            return Give(held.answer, age, "fresh")
        if held.usable(policy, age):
            return Give(held.answer, age, "stale-on-error" if held.on_error else "stale")
    return None if held.failure is None else refusal(held.failure, held.retry_at - mono)


def refusal(failure: Failure, retry_in: float, store_why: str = "") -> Fail:
    return Fail(failure.kind, failure.message, failure.count, max(0.0, retry_in), failure.authoritative, store_why)


def absorb(policy: Policy, held: Held, record: Record, version: Version | None, now: Now) -> Held:
    """What this node knows once it has read `record`. Never gives up an answer for an older one."""
    found = record.answer
    version_since = held.version_since if version is not None and held.version == version else now.mono
    known = replace(held, failure=record.failure, version=version, version_since=version_since)
    if held.answer is not None:
        known = replace(known, as_of=held.anchored(now))
    if found is None:
        return known
    if held.answer is not None and (found.fetched_at, found.value) == (held.answer.fetched_at, held.answer.value):
        # The same answer; Dewy v2 may have dropped the validator that is still in hand.
        return replace(known, invalidated=record.invalidated)
    as_of = min(found.fetched_at, now.store)
    if held.answer is not None and as_of <= known.as_of:
        return known
    return replace(
        known,
        answer=found,
        as_of=as_of,
        since=now.mono,
        due_age=policy.due_age(now.chance),
        invalidated=record.invalidated,
        own=False,
    )


# -- the table of section 3 --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serve:
    """Give this; nothing else is to be done until `look_in` seconds have passed."""

    outcome: Outcome
    look_in: float


@dataclass(frozen=True, slots=True)
class Follow:
    """No usable answer, and another node is fetching one: wait for it, `left` seconds at most."""

    left: float


@dataclass(frozen=True, slots=True)
class Lead:
    """Claim."""


Verdict: TypeAlias = Serve | Follow | Lead


def lock_left(policy: Policy, held: Held, lock: Lock | None, now: Now) -> float:
    """Seconds for which `lock` is still live; 0.0 where it is not."""
    if lock is None:
        return 0.0
    length = lock.length(policy.foreign_lease)
    by_store = lock.locked_at + length - now.store
    by_sight = held.version_since + length - now.mono
    return max(0.0, min(by_store, by_sight))


def backoff_left(policy: Policy, held: Held, failure: Failure | None, now: Now) -> float:
    """Seconds for which nobody calls the upstream; 0.0 where somebody may."""
    if failure is None:
        return 0.0
    longest = max(MAX_RETRY_AFTER * 1.1, policy.ttl, 300.0)
    length = min(failure.retry_at - failure.failed_at, longest)
    return max(0.0, min(failure.retry_at - now.store, held.version_since + length - now.mono))


def judge(policy: Policy, held: Held, record: Record, now: Now) -> Verdict:
    """What a node that holds `held`, `record` absorbed, has to do."""
    age = held.age(now)
    fresh, usable = held.fresh(policy, age), held.usable(policy, age)
    locked, backing_off = lock_left(policy, held, record.lock, now), backoff_left(policy, held, record.failure, now)
    answer = held.answer
    if answer is not None and fresh and (locked or backing_off or age < held.due_age):
        due = max(held.due_age - age, 0.0)
        pause = due or _spread(min(locked or backing_off, policy.spread), now)
        return Serve(Give(answer, age, "fresh"), pause)
    if locked:
        if answer is not None and usable:
            pause = min(locked, _spread(max(answer.took, policy.spread), now))
            return Serve(Give(answer, age, "stale"), pause)
        return Follow(locked)
    if backing_off and record.failure is not None:
        look_in = min(backing_off, policy.ttl) + now.chance * min(policy.spread, backing_off / 10)
        if answer is not None and usable:
            return Serve(Give(answer, age, "stale-on-error"), look_in)
        return Serve(refusal(record.failure, backing_off), look_in)
    return Lead()


def _spread(most: float, now: Now) -> float:
    return most * (0.5 + 0.5 * now.chance)


def settle(held: Held, now: Now, outcome: Outcome, look_in: float) -> Held:
    """`held` after `outcome`, with the promise that the store is not asked for `look_in` seconds."""
    return replace(
        held,
        look_at=now.mono + max(0.0, look_in),
        age_then=held.age(now) if held.answer is not None else 0.0,
        then=now.mono,
        retry_at=now.mono + (outcome.retry_in if isinstance(outcome, Fail) else max(0.0, look_in)),
        on_error=isinstance(outcome, Fail) or outcome.state == "stale-on-error",
    )
