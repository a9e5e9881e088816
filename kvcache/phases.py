"""The phases of a flight: where one node stands with one key, between two effects. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kvcache.events import Effect, Event, Outcome
from kvcache.kvs import Match, Version
from kvcache.record import Answer, Failure, Record
from kvcache.view import Held, Policy


@dataclass(frozen=True, slots=True)
class Looking:
    pass


@dataclass(frozen=True, slots=True)
class Pausing:
    pass


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that landed. `nonces` are all writes of this leader that may be standing in the store by now."""

    record: Record
    version: Version
    valid_from: float
    nonces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Claiming:
    record: Record
    match: Match
    sent_at: float
    sent: int = 1


@dataclass(frozen=True, slots=True)
class Loading:
    """`claim` is None for a call made because the store is down; `lost` once another node has taken over."""

    claim: Claim | None
    started_at: float
    deadline: float
    renew_at: float = math.inf
    lost: bool = False
    store_why: str = ""


@dataclass(frozen=True, slots=True)
class Renewing:
    loading: Loading
    claim: Claim
    record: Record
    sent_at: float


@dataclass(frozen=True, slots=True)
class Publishing:
    claim: Claim
    record: Record
    sent: int = 1


@dataclass(frozen=True, slots=True)
class Verifying:
    """Reading back a write of unknown, or doubtful, outcome. `why` it is unknown; "" where the store refused it."""

    write: Claiming | Renewing | Publishing
    why: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """A publish that has to wait. `verify`: its outcome is unknown, so look before it is sent again."""

    publishing: Publishing
    verify: bool


@dataclass(frozen=True, slots=True)
class Comparing:
    """The lease is lost; `own` is what this node loaded, None if its load failed."""

    own: Answer | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Recalling:
    why: str


@dataclass(frozen=True, slots=True)
class Over:
    pass


Phase: TypeAlias = (
    Looking | Pausing | Claiming | Loading | Renewing | Publishing | Verifying | Holding | Comparing | Recalling | Over
)


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight. `held` is what the node has in hand: the driver keeps it for the next call."""

    key: str
    policy: Policy
    held: Held
    phase: Phase = Looking()
    claims_lost: int = 0
    waited: float = 0.0
    recalled: bool = False
    healing: bool = False


class Step(NamedTuple):
    """What comes next. `deliver` is what the callers get; it may come before the flight is over."""

    flight: Flight
    effect: Effect
    told: tuple[Event, ...] = ()
    deliver: Outcome | None = None
