"""AsyncSharedCache: carries out, with asyncio, what the protocol asks for. The second driver; it decides nothing."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Self

from kvcache import drive
from kvcache import events as ev
from kvcache.access import InThreads
from kvcache.codec import encode
from kvcache.drive import Known
from kvcache.errors import Conflict, CorruptRecord, KVCacheError, NotFound, StoreUnavailable, UpstreamUnavailable
from kvcache.hand import INVALIDATE_TRIES, Hand, context_of
from kvcache.kvs import check_key
from kvcache.load import AsyncLoad, LoadContext, Result
from kvcache.phases import Flight, Step
from kvcache.protocol import advance, begin, meanwhile
from kvcache.view import hit


class AsyncSharedCache(Hand["_Flying"]):
    """`SharedCache` for asyncio: the same arguments, promises and records; for use from ONE event loop.

    Stores in memory, on S3, GCS, Redis and Consul are awaited without a thread per call; others are called in asyncio's
    thread pool. A load may be a coroutine function, or a plain one, which runs in that pool too.
    """

    def _opened(self) -> None:
        self._access = self._store.native_async() or InThreads(self._store)
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references

    async def get(self, key: str, load: AsyncLoad, *, timeout: float | None = None) -> Result:
        """As `SharedCache.get`. Cancelling it, or its `timeout`, harms neither the flight nor who else waits for it."""
        result = self._from_hand(key)
        if result is not None:
            return result
        flying, mine = self._board(check_key(key), load)
        if not mine and (outcome := meanwhile(flying.flight, self._time.now())) is not None:
            return self._hand_out(key, outcome)
        try:
            async with asyncio.timeout(timeout):
                outcome = await asyncio.shield(flying.outcome)
        except TimeoutError:
            raise UpstreamUnavailable(f"no answer within {timeout:g} s", kind="timeout") from None
        return drive.result(outcome, mine=mine, cause=flying.cause)

    async def peek(self, key: str) -> Result | None:
        """As `SharedCache.peek`."""
        known = self._entry(check_key(key))
        in_hand = isinstance(hit(self._policy, known.held, self._monotonic()), ev.Give)
        return self._peeked(key, known, None if in_hand else await self._read(key))

    async def invalidate(self, key: str) -> None:
        """As `SharedCache.invalidate`."""
        self._forget(check_key(key))
        for _ in range(INVALIDATE_TRIES):
            try:
                stored = await self._access.read_versioned(key)
                await self._access.write_if(key, self._invalidated(stored), stored.version)
            except NotFound:
                return
            except Conflict:
                continue
            return
        raise StoreUnavailable(f"{key}: too busy to be invalidated")

    async def aclose(self) -> None:
        """Forgets what is in hand, and waits for the flights under way; the store is not closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- flights ---------------------------------------------------------------------------------------------------

    def _board(self, key: str, load: AsyncLoad) -> tuple[_Flying, bool]:
        known = self._entry(key)
        flying = self._flights.get(key)
        if flying is not None:
            return flying, False
        step = begin(key, self._policy, known.held)
        flying = self._flights[key] = _Flying(step.flight, known.epoch)
        task = asyncio.create_task(self._fly(flying, step, known, load), name=f"kvcache {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flying, True

    async def _fly(self, flying: _Flying, step: Step, known: Known, load: AsyncLoad) -> None:
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
                came = await self._carry_out(flying, known, step.effect, load)
                step = advance(step.flight, came, self._time.now())
        except BaseException as error:
            # The loop is being closed, or a bug of ours or of a store: nobody may wait for ever.
            self._land(flying, known)
            if not flying.outcome.done():
                flying.outcome.set_exception(
                    StoreUnavailable("the event loop was closed")
                    if isinstance(error, asyncio.CancelledError)
                    else error
                )
            if isinstance(error, asyncio.CancelledError):
                raise
            drive.logger.exception("the flight for %s broke", key)

    def _land(self, flying: _Flying, known: Known) -> None:
        known.land(flying.flight.held, flying.epoch)
        if self._flights.get(flying.flight.key) is flying:
            del self._flights[flying.flight.key]
        if flying.load is not None:
            flying.load.cancel()  # if it is still running it was given up

    async def _carry_out(self, flying: _Flying, known: Known, effect: ev.Effect, load: AsyncLoad) -> ev.Input:
        key = flying.flight.key
        match effect:
            case ev.Read():
                return await self._read(key)
            case ev.Write(record, match):
                try:
                    return ev.Landed(await self._access.write_if(key, encode(record), match))
                except Exception as error:  # whatever a store raises, its write has to be read back
                    return drive.write_failure(error)
            case ev.StartLoad(previous, deadline, until):
                flying.load = asyncio.create_task(_call(load, context_of(previous, deadline)), name=f"load {key}")
                return await self._await(flying, until)
            case ev.AwaitLoad(until):
                return await self._await(flying, until)
            case ev.Wait(seconds, limit, version):
                if limit is not None and self._store.capabilities.watch:
                    try:
                        await self._access.wait_for_change(key, version, limit)
                        return ev.Elapsed()
                    except KVCacheError:
                        pass  # the notification failed: poll
                await asyncio.sleep(seconds)
                return ev.Elapsed()
            case ev.Recall():
                return self._recall(key)
            case ev.Stop():
                raise AssertionError("a flight that is over asks for nothing")

    async def _read(self, key: str) -> ev.Input:
        asked_at = self._monotonic()
        try:
            return self._found(await self._access.read_versioned(key), asked_at)
        except CorruptRecord as error:
            return await asyncio.to_thread(self._damaged, key, error)
        except Exception as error:  # whatever a store raises, the flight goes on without it
            return self._not_found(error, asked_at)

    async def _await(self, flying: _Flying, until: float) -> ev.Input:
        load = flying.load
        assert load is not None
        done, _ = await asyncio.wait({load}, timeout=max(0.0, until - self._monotonic()))
        if not done:
            return ev.Elapsed()
        if load.cancelled():
            return ev.LoadFailed("cancelled", "the load was cancelled")
        error = load.exception()
        if error is not None:
            flying.cause = error
            return drive.load_failure(error)
        return drive.load_input(load.result())


class _Flying:
    """A flight under way: its state as of now, and the outcome that its callers wait for."""

    __slots__ = ("cause", "epoch", "flight", "load", "outcome")

    def __init__(self, flight: Flight, epoch: int) -> None:
        self.flight = flight
        self.epoch = epoch
        self.outcome: asyncio.Future[ev.Outcome] = asyncio.get_running_loop().create_future()
        # Nobody may be left to see how it ended; that is no reason for asyncio to complain.
        self.outcome.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.load: asyncio.Task[Any] | None = None
        self.cause: BaseException | None = None


async def _call(load: AsyncLoad, context: LoadContext) -> Any:
    if inspect.iscoroutinefunction(load):
        return await load(context)
    value = await asyncio.to_thread(load, context)
    return await value if inspect.isawaitable(value) else value
