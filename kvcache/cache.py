"""SharedCache: carries out, with threads, what the protocol asks for."""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Self

from kvcache import drive
from kvcache import events as ev
from kvcache.codec import encode
from kvcache.drive import Known
from kvcache.errors import Conflict, CorruptRecord, KVCacheError, NotFound, StoreUnavailable, UpstreamUnavailable
from kvcache.hand import INVALIDATE_TRIES, Hand, context_of
from kvcache.kvs import check_key
from kvcache.load import Load, LoadContext, Result
from kvcache.phases import Flight, Step
from kvcache.protocol import advance, begin, meanwhile
from kvcache.view import hit


class SharedCache(Hand["_Flying"]):
    """One fresh answer per key for a whole fleet, from one upstream call per `ttl`.

    `ttl`: how long an answer is fresh. `max_stale`: the age up to which it is still served while it is refreshed or
    the upstream fails (None: for as long as the store keeps it; below ttl: never). `lease`: how long a leader that has
    died holds up its followers. `refresh_ahead`: 0.0 to below 1.0, the part of the ttl before its end in which one node
    refreshes, for callers who never want a stale answer. `load_timeout`: when a load is given up, 10 leases unless told
    otherwise; a lease is renewed while its load runs. `background`: a caller who leads with a usable answer gets that
    at once, and the load goes on behind it. `local_copy`: a directory for the last known answers of this node. Times
    are seconds or timedelta. `on_event` is called with the frozen values of `kvcache.events`, from any thread.

    Safe to use from any number of threads. Unsupported: the store has no conditional writes. InvalidURL: it removes
    values (`expire=`) before these numbers allow it.
    """

    def _opened(self) -> None:
        _caches.add(self)

    def get(self, key: str, load: Load, *, timeout: float | None = None) -> Result:
        """The answer for `key`, fresh if at all possible; `load(ctx)` is called by the fleet's one leader.

        While the answer in hand is fresh this costs no request. `timeout`: seconds this caller waits at most; the
        flight goes on for the others. UpstreamUnavailable: no usable answer. InvalidKey.
        """
        result = self._from_hand(key)
        if result is not None:
            return result
        flying, mine = self._board(check_key(key), load)
        if not mine and (outcome := meanwhile(flying.flight, self._time.now())) is not None:
            return self._hand_out(key, outcome)
        try:
            outcome = flying.outcome.result(timeout)
        except FutureTimeout:
            raise UpstreamUnavailable(f"no answer within {timeout:g} s", kind="timeout") from None
        return drive.result(outcome, mine=mine, cause=flying.cause)

    def peek(self, key: str) -> Result | None:
        """The last known answer, whatever its age within max-stale; never calls the upstream, never claims.

        Costs one read of the store unless a fresh answer is in hand. StoreUnavailable if there is none in hand either.
        """
        known = self._entry(check_key(key))
        in_hand = isinstance(hit(self._policy, known.held, self._monotonic()), ev.Give)
        return self._peeked(key, known, None if in_hand else self._read(key))

    def invalidate(self, key: str) -> None:
        """The next get refreshes; the old answer stays as fallback.

        Other processes notice at their next look at the store, which is when their answer in hand expires. A leader
        that is loading now will not publish what it loads. StoreUnavailable: it is not invalidated.
        """
        self._forget(check_key(key))
        for _ in range(INVALIDATE_TRIES):
            try:
                stored = self._store.read_versioned(key)
                self._store.write_if(key, self._invalidated(stored), stored.version)
            except NotFound:
                return
            except Conflict:
                continue
            return
        raise StoreUnavailable(f"{key}: too busy to be invalidated")

    def close(self) -> None:
        """Forgets what is in hand. Flights under way come to their end; the store is not closed."""
        _caches.discard(self)
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- flights ---------------------------------------------------------------------------------------------------

    def _board(self, key: str, load: Load) -> tuple[_Flying, bool]:
        """The flight for `key`, and whether this caller has just set it off."""
        known = self._entry(key)
        with self._lock:
            flying = self._flights.get(key)
            if flying is not None:
                return flying, False
            step = begin(key, self._policy, known.held)
            flying = self._flights[key] = _Flying(step.flight, known.epoch, contextvars.copy_context())
        # A thread of its own: neither the time-out nor the interrupt of the caller who happened to come first may
        # take the answer from those who wait for it too. It is a daemon, so a hung upstream cannot keep a process.
        threading.Thread(target=self._fly, args=(flying, step, known, load), name=f"kvcache {key}", daemon=True).start()
        return flying, True

    def _fly(self, flying: _Flying, step: Step, known: Known, load: Load) -> None:
        key = flying.flight.key
        try:
            while True:
                flying.flight = step.flight
                self._tell(known, step)
                self._save(known, step)
                over = isinstance(step.effect, ev.Stop)
                if over:
                    self._land(flying, known)
                if step.deliver is not None and not flying.outcome.done():
                    flying.outcome.set_result(step.deliver)
                if over:
                    return
                came = self._carry_out(flying, known, step.effect, load)
                step = advance(step.flight, came, self._time.now())
        except BaseException as error:
            # A bug of ours, or of a store: those who wait must hear of it rather than wait for ever.
            self._land(flying, known)
            if not flying.outcome.done():
                flying.outcome.set_exception(error)
            drive.logger.exception("the flight for %s broke", key)

    def _land(self, flying: _Flying, known: Known) -> None:
        # Before the callers are told: whoever comes after them finds the answer in hand, and no flight to board.
        with self._lock:
            known.land(flying.flight.held, flying.epoch)
            if self._flights.get(flying.flight.key) is flying:
                del self._flights[flying.flight.key]

    def _carry_out(self, flying: _Flying, known: Known, effect: ev.Effect, load: Load) -> ev.Input:
        key = flying.flight.key
        match effect:
            case ev.Read():
                return self._read(key)
            case ev.Write(record, match):
                try:
                    return ev.Landed(self._store.write_if(key, encode(record), match))
                except Exception as error:  # whatever a store raises, its write has to be read back
                    return drive.write_failure(error)
            case ev.StartLoad(previous, deadline, until):
                if known.loading is not None and known.loading.is_alive():
                    return ev.LoadFailed("still-running", "a load that was given up is still running in this process")
                context = context_of(previous, deadline)
                flying.load = Future()
                run = threading.Thread(
                    target=flying.context.run, args=(_call, load, context, flying.load), name=f"load {key}", daemon=True
                )
                known.loading = run
                run.start()
                return self._await(flying, until)
            case ev.AwaitLoad(until):
                return self._await(flying, until)
            case ev.Wait(seconds, limit, version):
                if limit is not None and self._store.capabilities.watch:
                    try:
                        self._store.wait_for_change(key, version, limit)
                        return ev.Elapsed()
                    except KVCacheError:
                        pass  # the notification failed: poll
                self._clock.sleep(seconds)
                return ev.Elapsed()
            case ev.Recall():
                return self._recall(key)
            case ev.Stop():
                raise AssertionError("a flight that is over asks for nothing")

    def _read(self, key: str) -> ev.Input:
        asked_at = self._monotonic()
        try:
            return self._found(self._store.read_versioned(key), asked_at)
        except CorruptRecord as error:
            return self._damaged(key, error)
        except Exception as error:  # whatever a store raises, the flight goes on without it
            return self._not_found(error, asked_at)

    def _await(self, flying: _Flying, until: float) -> ev.Input:
        load = flying.load
        try:
            value = load.result(max(0.0, until - self._monotonic()))
        except BaseException as error:
            # A load may itself raise TimeoutError, which is what a wait that is over raises too.
            if isinstance(error, FutureTimeout) and not load.done():
                return ev.Elapsed()
            flying.cause = load.exception() if load.done() else error
            return drive.load_failure(flying.cause or error)
        return drive.load_input(value)

    def _after_fork(self) -> None:
        """In the child: the threads of the parent's flights are not here, and the lock may have been held."""
        self._lock = threading.Lock()
        self._flights = {}


class _Flying:
    """A flight under way: its state as of now, and the outcome that its callers wait for."""

    __slots__ = ("cause", "context", "epoch", "flight", "load", "outcome")

    def __init__(self, flight: Flight, epoch: int, context: contextvars.Context) -> None:
        self.flight = flight
        self.epoch = epoch
        self.context = context
        self.outcome: Future[ev.Outcome] = Future()
        self.load: Future[Any] = Future()
        self.cause: BaseException | None = None


def _call(load: Load, context: LoadContext, future: Future[Any]) -> None:
    try:
        future.set_result(load(context))
    except BaseException as error:  # also SystemExit: it is the load that failed, not this process
        future.set_exception(error)


_caches: weakref.WeakSet[SharedCache] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for cache in list(_caches):
        cache._after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)
