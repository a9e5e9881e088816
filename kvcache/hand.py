"""What both caches have in hand, and everything about them that needs neither threads nor asyncio."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Generic, TypeAlias, TypeVar

from kvcache import drive
from kvcache import events as ev
from kvcache.clock import SYSTEM, Clock, StoreClock
from kvcache.codec import encode
from kvcache.config import check_expiry, policy
from kvcache.drive import Known, Observer
from kvcache.errors import NotFound, StoreUnavailable, Unsupported
from kvcache.kvs import Store, Stored
from kvcache.load import LoadContext, Result
from kvcache.localcopy import LocalCopy
from kvcache.phases import Flight, Step
from kvcache.protocol import meanwhile
from kvcache.record import EMPTY, Answer, invalidated
from kvcache.view import absorb, hit

Seconds: TypeAlias = float | timedelta
Flying = TypeVar("Flying")
INVALIDATE_TRIES = 20


class Hand(Generic[Flying]):
    """The answers in hand, bounded in number; the flights under way; what observers are told.

    Unsupported: the store has no conditional writes. InvalidURL: it removes values too soon for these numbers.
    ValueError: a number that makes no sense.
    """

    def __init__(
        self,
        store: Store,
        ttl: Seconds,
        max_stale: Seconds | None = None,
        lease: Seconds | None = None,
        refresh_ahead: float = 0.0,
        on_event: Observer | None = None,
        *,
        load_timeout: Seconds | None = None,
        background: bool = False,
        local_copy: str | os.PathLike[str] | None = None,
        max_keys: int = 10_000,
        clock: Clock = SYSTEM,
    ) -> None:
        if not store.capabilities.conditional_write:
            raise Unsupported(f"{store.url}: a SharedCache needs a store with conditional writes")
        self._store = store
        self._policy = policy(ttl, max_stale, lease, refresh_ahead, load_timeout, background)
        check_expiry(self._policy, store)
        self._observer = on_event
        self._local = LocalCopy(local_copy, clock.wall) if local_copy is not None else None
        self._max_keys = max_keys
        self._clock = clock
        self._monotonic = clock.monotonic
        self._time = StoreClock(clock, store.capabilities.time_resolution)
        # Protects the two dictionaries below, and nothing slower than a dictionary is ever done under it. What is in
        # hand is read without it: an entry's `held` is one frozen value, replaced as a whole.
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._flights: dict[str, Flying] = {}
        self._opened()

    def _opened(self) -> None:
        """For the driver: everything is set up."""

    # -- answers that cost no request ------------------------------------------------------------------------------

    def _from_hand(self, key: str) -> Result | None:
        known = self._known.get(key)
        if known is None:
            return None
        outcome = hit(self._policy, known.held, self._monotonic())
        return None if outcome is None else self._hand_out(key, outcome)

    def _hand_out(self, key: str, outcome: ev.Outcome) -> Result:
        """An outcome that this caller has done nothing for. UpstreamUnavailable."""
        if self._observer is not None and (event := drive.told_hit(key, outcome)) is not None:
            drive.tell(self._observer, event)
        return drive.result(outcome, mine=False)

    def _peeked(self, key: str, known: Known, came: ev.Input | None) -> Result | None:
        """What peek gives; `came` is what the store said, None where it was not asked."""
        now = self._time.now()
        held = known.held
        if isinstance(came, ev.Found):
            held = absorb(self._policy, held, came.record, came.version, now)
        outcome = meanwhile(Flight(key, self._policy, held), now)
        if outcome is None and isinstance(came, ev.ReadFailed):
            raise StoreUnavailable(came.why)
        return drive.result(outcome, mine=False) if isinstance(outcome, ev.Give) else None

    # -- what the drivers do alike -----------------------------------------------------------------------------------

    def _found(self, stored: Stored, asked_at: float) -> ev.Input:
        self._time.observe(stored.store_time, asked_at)
        return drive.read_input(stored)

    def _not_found(self, error: Exception, asked_at: float) -> ev.Input:
        """What a failed read says: most often that there is nothing yet."""
        self._time.observe(error.store_time if isinstance(error, NotFound) else None, asked_at)
        return drive.read_failure(error)

    def _damaged(self, key: str, error: Exception) -> ev.Input:
        """The store itself finds its value damaged, in a part of it say: unreadable, to be replaced on its version."""
        asked_at = self._monotonic()
        try:
            return ev.Unreadable(self._store.stat(key).version, drive.what(error))
        except Exception as failed:  # whatever a store raises, the flight goes on without it
            return self._not_found(failed, asked_at)

    def _invalidated(self, stored: Stored) -> bytes:
        came = drive.read_input(stored)
        record = came.record if isinstance(came, ev.Found) else EMPTY
        return encode(invalidated(record, nonce=self._clock.nonce()))

    def _tell(self, known: Known, step: Step) -> None:
        for event in step.told:
            known.log_unreadable(event)
            drive.tell(self._observer, event)

    def _recall(self, key: str) -> ev.Recalled:
        return self._local.recall(key) if self._local is not None else ev.Recalled(None)

    def _save(self, known: Known, step: Step) -> None:
        held = step.flight.held
        if self._local is not None and held.answer is not None and held.answer is not known.saved:
            known.saved = held.answer
            self._local.save(step.flight.key, held.answer, held.age(self._time.now()))

    def _forget(self, key: str) -> None:
        known = self._entry(key)
        with self._lock:
            known.epoch += 1
            known.held = drive.forgotten(known.held)

    def _entry(self, key: str) -> Known:
        with self._lock:
            known = self._known.get(key)
            if known is None:
                if len(self._known) >= self._max_keys:
                    self._forget_one()
                known = self._known[key] = Known()
            return known

    def _forget_one(self) -> None:
        """Under the lock: the oldest key that no flight is under way for."""
        for key in self._known:
            if key not in self._flights:
                del self._known[key]
                return

    def close(self) -> None:
        """Forgets what is in hand. Flights under way come to their end; the store is not closed."""
        with self._lock:
            self._known.clear()


def context_of(previous: Answer | None, deadline: float) -> LoadContext:
    if previous is None:
        return LoadContext(None, None, None, deadline)
    return LoadContext(previous.value, previous.validator, previous.extra, deadline)
