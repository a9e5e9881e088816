"""What the two drivers of the protocol share: exceptions and values become inputs, outcomes become results.

`kvcache.cache` drives it with threads, `kvcache.aio` with asyncio; neither decides anything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kvcache import events as ev
from kvcache.codec import decode, encode_json
from kvcache.errors import (
    Conflict,
    CorruptRecord,
    NotFound,
    StoreUnavailable,
    Throttled,
    TooLarge,
    Unsupported,
    UpstreamError,
    UpstreamUnavailable,
)
from kvcache.kvs import Stored
from kvcache.load import NOT_MODIFIED, Loaded, Result
from kvcache.record import Answer
from kvcache.redaction import scrub
from kvcache.view import NOTHING, Held

logger = logging.getLogger("kvcache")
Observer: TypeAlias = Callable[[ev.Event], None]


def read_input(stored: Stored) -> ev.Found | ev.Unreadable:
    try:
        return ev.Found(decode(stored.data), stored.version)
    except CorruptRecord as error:
        return ev.Unreadable(stored.version, scrub(str(error)))


def read_failure(error: Exception) -> ev.Missing | ev.ReadFailed:
    return ev.Missing() if isinstance(error, NotFound) else ev.ReadFailed(what(error))


def write_failure(error: Exception) -> ev.Refused | ev.Throttled | ev.Unknown | ev.Unwritable:
    """What a failed conditional write says. Whatever is not certain is unknown, and will be read back."""
    match error:
        case Conflict():
            return ev.Refused()
        case Throttled():
            return ev.Throttled(error.retry_after)
        case TooLarge() | Unsupported():
            return ev.Unwritable(what(error))
        case _:
            return ev.Unknown(what(error))


def load_input(value: Any) -> ev.LoadDone | ev.LoadUnchanged | ev.LoadFailed:
    """What a load returned; a value that is not JSON is a failed load."""
    if value is NOT_MODIFIED:
        return ev.LoadUnchanged()
    loaded = value if isinstance(value, Loaded) else Loaded(value)
    try:
        encode_json([loaded.value, loaded.validator, loaded.extra])
    except (TypeError, ValueError, RecursionError) as error:
        return ev.LoadFailed("not-json", scrub(f"the load returned what is not JSON: {error}"))
    return ev.LoadDone(loaded.value, loaded.validator, loaded.extra)


def load_failure(error: BaseException) -> ev.LoadFailed:
    if isinstance(error, UpstreamError):
        kind = "authoritative" if error.authoritative else "rate-limited" if error.retry_after else "upstream"
        return ev.LoadFailed(kind, scrub(str(error)), error.retry_after, error.authoritative)
    return ev.LoadFailed(type(error).__name__, scrub(str(error)))


def what(error: Exception) -> str:
    """One line on an error, without secrets; a foreign exception keeps its type's name."""
    text = scrub(str(error))
    return text if isinstance(error, StoreUnavailable) and text else f"{type(error).__name__}: {text}"


def result(outcome: ev.Outcome, *, mine: bool, cause: BaseException | None = None) -> Result:
    """The outcome as its caller gets it. `mine`: this caller set the flight off. UpstreamUnavailable."""
    if isinstance(outcome, ev.Give):
        answer = outcome.answer
        return Result(answer.value, outcome.age, outcome.state, outcome.refreshed and mine, answer.extra)
    reasons = []
    if outcome.store_why:
        reasons.append(f"store unavailable: {outcome.store_why}")
    if outcome.count:
        reasons.append(f"upstream failed {outcome.count} time(s), last: {outcome.kind}: {outcome.message}")
    elif outcome.message:
        reasons.append(outcome.message)
    if outcome.retry_in > 0:
        reasons.append(f"next call due in {outcome.retry_in:.1f} s")
    raise UpstreamUnavailable(
        "no usable answer; " + "; ".join(reasons),
        kind=outcome.kind,
        failure=outcome.message,
        count=outcome.count,
        retry_in=outcome.retry_in,
        authoritative=outcome.authoritative,
    ) from cause


def told_hit(key: str, outcome: ev.Outcome) -> ev.Event | None:
    """The event for an answer that came from what was in hand."""
    if not isinstance(outcome, ev.Give):
        return None
    if outcome.state == "fresh":
        return ev.Hit(key, outcome.age, stored=False)
    return ev.StaleServed(key, outcome.age, outcome.state == "stale-on-error")


def tell(observer: Observer | None, event: ev.Event) -> None:
    """An observer's own failure is logged and harms nobody."""
    if observer is None:
        return
    try:
        observer(event)
    except Exception:
        # Foreign code in the middle of a flight: whatever it raises must not leave a claim behind.
        logger.exception("an on_event observer failed on %s", type(event).__name__)


@dataclass(slots=True)
class Known:
    """What a driver keeps for one key. `epoch` counts invalidations; `unreadable` was logged already.

    `loading` is the thread of the last load: one that was given up may still be running, and must not be joined by
    a second one.
    """

    held: Held = NOTHING
    epoch: int = 0
    saved: Answer | None = None
    unreadable: bool = False
    loading: threading.Thread | None = None

    def land(self, held: Held, epoch: int) -> None:
        """A flight that began in `epoch` is over. What it brought is not fresh if it was invalidated meanwhile."""
        self.held = held if epoch == self.epoch else forgotten(held)

    def log_unreadable(self, event: ev.Event) -> None:
        if isinstance(event, ev.RecordUnreadable) and not self.unreadable:
            self.unreadable = True
            logger.warning("unreadable record under %s (%s); it will be replaced", event.key, event.why)
        elif isinstance(event, ev.RecordHealed):
            self.unreadable = False


def forgotten(held: Held) -> Held:
    """`held` so that the next call looks at the store, and does not take the answer in hand for fresh."""
    return replace(held, look_at=NOTHING.look_at, invalidated=held.answer is not None)
