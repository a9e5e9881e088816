"""Frozen nouns: what the protocol wants done, what came of it, what callers get, and what observers are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from kvcache.kvs import Match, Version
from kvcache.load import State
from kvcache.record import Answer, Record

# -- effects: what the protocol wants done next. Exactly one at a time ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Read the record. Answer with Found, Unreadable, Missing or ReadFailed."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write conditionally. Answer with Landed, Refused, Throttled, Unknown or Unwritable."""

    record: Record
    match: Match


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Call the upstream and wait for it until `until`. Answer with LoadDone, LoadUnchanged, LoadFailed or Elapsed.

    `until` and `deadline` are on the monotonic clock; what comes after the deadline is thrown away.
    """

    previous: Answer | None
    deadline: float
    until: float


@dataclass(frozen=True, slots=True)
class AwaitLoad:
    """Go on waiting for the load that runs. Answer as to StartLoad."""

    until: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Pause for `seconds`; where the store tells of changes, rather wait for the next one, at most `limit` seconds.

    `limit` None: a pause is what is wanted, whatever changes meanwhile.
    """

    seconds: float
    limit: float | None
    version: Version | None


@dataclass(frozen=True, slots=True)
class Recall:
    """Fetch the local copy of the last answer from disk. Answer with Recalled."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The flight is over."""


Effect: TypeAlias = Read | Write | StartLoad | AwaitLoad | Wait | Recall | Stop

# -- inputs: what came of an effect ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    record: Record
    version: Version


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are no record."""

    version: Version
    why: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing is stored under the key."""


@dataclass(frozen=True, slots=True)
class ReadFailed:
    why: str


@dataclass(frozen=True, slots=True)
class Landed:
    """The write was carried out."""

    version: Version


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold, says the store. After a retried write that may be our own write speaking."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """Certainly not written; the store asks for a pause, in seconds where it names one."""

    pause: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Written or not, or not yet: no trustworthy answer came."""

    why: str


@dataclass(frozen=True, slots=True)
class Unwritable:
    """The store can never take this record."""

    why: str


@dataclass(frozen=True, slots=True)
class LoadDone:
    value: Any
    validator: Any = None
    extra: Any = None


@dataclass(frozen=True, slots=True)
class LoadUnchanged:
    """The previous answer still holds."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    kind: str
    message: str
    retry_after: float | None = None
    authoritative: bool = False


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The pause, or the time to wait for a load, is over."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The local copy and its age in seconds; None where there is none."""

    answer: Answer | None
    age: float = 0.0


Input: TypeAlias = (
    Found
    | Unreadable
    | Missing
    | ReadFailed
    | Landed
    | Refused
    | Throttled
    | Unknown
    | Unwritable
    | LoadDone
    | LoadUnchanged
    | LoadFailed
    | Elapsed
    | Recalled
)

# -- outcomes: what callers get ----------------------------------------------------------------------------------


class Give(NamedTuple):
    """An answer. A tuple, for one is made at every hit, and a frozen dataclass takes three times as long to make."""

    answer: Answer
    age: float
    state: State
    refreshed: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """No usable answer. `store_why`: what is wrong with the store, "" where nothing is."""

    kind: str
    message: str
    count: int = 0
    retry_in: float = 0.0
    authoritative: bool = False
    store_why: str = ""


Outcome: TypeAlias = Give | Fail

# -- events: what observers are told. Durations in seconds -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `key` is the key in the store."""

    key: str


@dataclass(frozen=True, slots=True)
class Hit(Event):
    """Answered without an upstream call: from what was in hand (`stored` False) or by a read of the store."""

    age: float
    stored: bool


@dataclass(frozen=True, slots=True)
class StaleServed(Event):
    age: float
    on_error: bool


@dataclass(frozen=True, slots=True)
class LockAwaited(Event):
    """Another node is refreshing, and there is nothing to serve meanwhile: told once a call, when the wait begins."""


@dataclass(frozen=True, slots=True)
class Claimed(Event):
    """This node is the leader."""


@dataclass(frozen=True, slots=True)
class ClaimLost(Event):
    """Another node was faster."""


@dataclass(frozen=True, slots=True)
class LeaseRenewed(Event):
    pass


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """Another node took over; what this one loads is not published."""


@dataclass(frozen=True, slots=True)
class Published(Event):
    pass


@dataclass(frozen=True, slots=True)
class UpstreamCalled(Event):
    """A load came to its end. `shared` is False for a call made because the store was down."""

    duration: float
    ok: bool
    shared: bool = True


@dataclass(frozen=True, slots=True)
class UpstreamFailed(Event):
    """The fleet makes no further call for `backoff` seconds."""

    kind: str
    message: str
    count: int
    backoff: float


@dataclass(frozen=True, slots=True)
class RecordUnreadable(Event):
    why: str


@dataclass(frozen=True, slots=True)
class RecordHealed(Event):
    """Unreadable bytes were replaced by a good record."""


@dataclass(frozen=True, slots=True)
class WriteReconciled(Event):
    """A write of unknown outcome had landed (`landed`), or had not."""

    landed: bool


@dataclass(frozen=True, slots=True)
class StoreDown(Event):
    why: str
