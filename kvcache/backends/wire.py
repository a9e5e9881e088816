"""What every store behind fsspec needs of its event loop and of HTTP: to wait for it, to count what was really sent."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from aiohttp import ClientRequest, TraceConfig

T = TypeVar("T")

CANCEL_SECONDS: Final = 5.0
"""How long an interrupted caller (Ctrl-C) waits for the operation to clean up after itself."""


def client_loop() -> asyncio.AbstractEventLoop:
    """The event loop, in a thread of its own, on which fsspec's clients live."""
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on fsspec's own loop, from any other thread, and returns what it returns.

    Where the caller is interrupted the coroutine is cancelled too, and given time to clean up (an upload's parts).
    """
    outcome: Future[T] = Future()

    async def run() -> None:
        # Tells the outcome itself: a callback of its task would, a whole turn of the loop later.
        try:
            outcome.set_result(await work)
        except BaseException as error:  # it is the waiting thread's, whatever it is
            outcome.set_exception(error)

    running = asyncio.run_coroutine_threadsafe(run(), client_loop())
    try:
        return outcome.result()
    except BaseException:
        if not outcome.done():  # only where it was we who were interrupted, and not the work that failed
            running.cancel()
            with suppress(BaseException):  # what the work ends with now is nobody's any more
                outcome.result(CANCEL_SECONDS)
        raise


class PerProcess(Generic[T]):
    """A value made on first use, once in each process: a client must not be shared with a forked child."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._value: T | None = None
        self._inherited: list[T] = []

    def get(self) -> T:
        """This process's value. Raises what making it raises, and then tries again the next time."""
        if self._pid != os.getpid():
            self._adopt_child()
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def made(self) -> T | None:
        """This process's value if there is one already."""
        return self._value if self._pid == os.getpid() else None

    def take(self) -> T | None:
        """Takes away this process's value, if there is one, for closing it."""
        if self._pid != os.getpid():
            self._adopt_child()
        with self._lock:
            value, self._value = self._value, None
            return value

    def _adopt_child(self) -> None:
        # The parent's lock may have been held by a thread that does not exist here. Its client stays referenced, since
        # finalising it would say goodbye on connections that the parent goes on using.
        self._lock = threading.Lock()
        if self._value is not None:
            self._inherited.append(self._value)
        self._value, self._pid = None, os.getpid()


# -- counting ---------------------------------------------------------------------------------------------------------

_sends: ContextVar[list[str] | None] = ContextVar("kvcache_sends", default=None)


@contextmanager
def counting_sends() -> Iterator[list[str]]:
    """A list that gets one entry for each request that aiohttp really sends inside, its own silent re-sends included.

    aiohttp sends a PUT again when the connection breaks, and no setting stops it. A refusal then proves nothing: the
    first copy may have been carried out. Exactly one entry is what makes a refusal trustworthy.
    """
    sent: list[str] = []
    token = _sends.set(sent)
    try:
        yield sent
    finally:
        _sends.reset(token)


@cache
def counted_requests() -> type[ClientRequest]:
    """aiohttp's requests with the hook under `counting_sends`: for our sessions that send conditional writes."""
    from aiohttp import ClientRequest

    class CountedRequest(ClientRequest):
        async def send(self, conn: Any) -> Any:
            _note(self.method)
            return await super().send(conn)

    return CountedRequest


def tracing() -> TraceConfig:
    """The same for a session whose requests are not ours to choose. It makes a request a tenth slower."""
    from aiohttp import TraceConfig

    async def note(_session: object, _context: object, params: Any) -> None:
        _note(params.method)

    config = TraceConfig()
    config.on_request_headers_sent.append(note)
    config.freeze()
    return config


def _note(method: str) -> None:
    sent = _sends.get()
    if sent is not None:
        sent.append(method)


# -- proxies ----------------------------------------------------------------------------------------------------------


def proxy_of(address: str) -> str | None:
    """The proxy that the environment (`https_proxy`, `no_proxy`...) names for a service; None: straight.

    Not aiohttp's `trust_env`: that reads ~/.netrc too, on two threads for each request, and fails where what it finds
    there meets the credentials of a request.
    """
    place = urlsplit(address)
    return None if proxy_bypass(place.hostname or "") else getproxies().get(place.scheme)


# -- headers ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)  # a busy process sees the same second in many answers
def http_date(text: str | None) -> float | None:
    """Seconds since the epoch of a Date header; None where there is none that can be read."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def pause_asked(text: str | None, now: float | None) -> float | None:
    """Seconds of a Retry-After header, given in seconds or as a date; `now` is the Date of the same answer."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    until = http_date(text)
    return max(0.0, until - now) if until is not None and now is not None else None
