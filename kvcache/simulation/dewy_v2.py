"""Dewy v2's way of sharing a registry's answer, for comparison side by side. Pure, over the same effects as ours.

Written from a description of what the Go program does. Its clients' hidden retries of conditional writes, which make
it worse, are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.events import Event, Fail, Give, Input, Outcome
from kvcache.kvs import ABSENT, Match, Version
from kvcache.record import EMPTY, Answer, Lock, Record
from kvcache.view import NOTHING, Held, Policy

_NOTHING_THERE: Match = ABSENT
NAP = 0.25
"""Seconds between two looks at a locked entry."""

Phase = Literal["reading", "napping", "claiming", "loading", "publishing", "releasing", "direct", "over"]


@dataclass(frozen=True, slots=True)
class Flight:
    """One call of v2's `Current`. Nothing is kept in hand between two calls."""

    policy: Policy
    phase: Phase = "reading"
    deadline: float = math.inf
    entry: Record = EMPTY
    match: Match = ABSENT
    own: Answer | None = None
    held: Held = NOTHING


class Step(NamedTuple):
    flight: Flight
    effect: ev.Effect
    told: tuple[Event, ...] = ()
    deliver: Outcome | None = None


def begin(key: str, policy: Policy, held: Held) -> Step:
    return Step(Flight(policy), ev.Read())


def hit(policy: Policy, held: Held, mono: float) -> Outcome | None:
    """Every call reads the store."""
    return None


def meanwhile(flight: Flight, now: Now) -> Outcome | None:
    """Whoever asks while a call is under way waits for it."""
    return None


def advance(flight: Flight, came: Input, now: Now) -> Step:
    """The next step. `now.store` is this host's own wall clock: v2 trusts it."""
    if math.isinf(flight.deadline):
        flight = replace(flight, deadline=now.mono + flight.policy.foreign_lease + NAP)
    match flight.phase:
        case "reading":
            return _read(flight, came, now)
        case "napping":
            return Step(replace(flight, phase="reading"), ev.Read())
        case "claiming":
            return _claimed(flight, came, now)
        case "loading":
            return _loaded(flight, came, now)
        case "publishing":
            return _over(flight, flight.own, now)
        case "releasing" | "direct":
            if isinstance(came, ev.LoadDone):
                return _over(flight, Answer(came.value, now.store), now)
            return _over(flight, flight.entry.answer if flight.phase == "releasing" else None, now)
        case "over":
            raise ValueError("the flight is over")


def _read(flight: Flight, came: Input, now: Now) -> Step:
    if isinstance(came, ev.ReadFailed):
        return _direct(flight)
    entry, match = EMPTY, _NOTHING_THERE
    if isinstance(came, ev.Found):
        entry, match = came.record, came.version
    flight = replace(flight, entry=entry, match=match)
    answer, lock, policy = entry.answer, entry.lock, flight.policy
    if answer is not None and now.store - answer.fetched_at < policy.ttl:
        return _over(flight, answer, now)
    locked = lock is not None and now.store - lock.locked_at < policy.foreign_lease
    if locked and now.mono < flight.deadline:
        return _nap(flight)
    claim = Record(now.nonce, answer, Lock(now.store, policy.node))
    return Step(replace(flight, phase="claiming"), ev.Write(claim, match))


def _nap(flight: Flight) -> Step:
    return Step(replace(flight, phase="napping"), ev.Wait(NAP, NAP, None))


def _claimed(flight: Flight, came: Input, now: Now) -> Step:
    if isinstance(came, ev.Landed):
        return _load(replace(flight, phase="loading", match=came.version))
    if isinstance(came, ev.Refused):
        return _nap(flight)
    return _direct(flight) if flight.entry.answer is None else _over(flight, flight.entry.answer, now)


def _direct(flight: Flight) -> Step:
    return _load(replace(flight, phase="direct"))


def _load(flight: Flight) -> Step:
    """v2's HTTP calls have no deadline."""
    return Step(flight, ev.StartLoad(flight.entry.answer, math.inf, math.inf))


def _loaded(flight: Flight, came: Input, now: Now) -> Step:
    if not isinstance(flight.match, Version):
        raise ValueError("a load without a claim")
    if isinstance(came, ev.LoadDone):
        own = Answer(came.value, now.store)
        return Step(replace(flight, phase="publishing", own=own), ev.Write(Record(now.nonce, own), flight.match))
    # No failure state: the lock is taken off, and the next node calls.
    return Step(replace(flight, phase="releasing"), ev.Write(Record(now.nonce, flight.entry.answer), flight.match))


def _over(flight: Flight, answer: Answer | None, now: Now) -> Step:
    outcome: Outcome
    if answer is None:
        outcome = Fail("upstream", "the registry call failed")
    else:
        age = now.store - answer.fetched_at
        outcome = Give(answer, age, "fresh" if age < flight.policy.ttl else "stale")
    return Step(replace(flight, phase="over"), ev.Stop(), (), outcome)
