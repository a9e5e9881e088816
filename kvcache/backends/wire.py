"""What every store behind fsspec needs of its event loop and of HTTP: to wait for it, to count what was really sent."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from aiohttp import TraceConfig

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
    loop = client_loop()
    finished = threading.Event()

    async def tracked() -> T:
        try:
            return await work
        finally:
            finished.set()

    future = asyncio.run_coroutine_threadsafe(tracked(), loop)
    try:
        return future.result()
    except BaseException:
        if future.cancel():  # only where it was we who were interrupted: a future that has failed is not cancelled
            finished.wait(CANCEL_SECONDS)
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


def tracing() -> TraceConfig:
    """The aiohttp hook under `counting_sends`; for every session through which conditional writes go."""
    from aiohttp import TraceConfig

    async def note(_session: object, _context: object, params: Any) -> None:
        sent = _sends.get()
        if sent is not None:
            sent.append(params.method)

    config = TraceConfig()
    config.on_request_headers_sent.append(note)
    config.freeze()
    return config


# -- headers ----------------------------------------------------------------------------------------------------------


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
