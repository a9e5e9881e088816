"""Calls that come to an end for the caller, whatever they wait for.

No thread of Python can be ended from outside, and not every wait has a time-out of its own: the system's name
resolution, a network file system, a client library. So such a call is made in a thread of its own, which is left behind
when its time is up. How many may be left is bounded, or an upstream that hangs for days would fill this process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final, TypeVar

from dewy.errors import DewyError

T = TypeVar("T")

MOST_LEFT_BEHIND: Final = 8
_SHORTEST: Final = 1.0


class Overdue(DewyError):
    """A call was not back in time. It may go on in its thread: what it works with must not be used again."""


class Deadline:
    """A point of the monotonic clock, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; never less than one, so that what is tried at all has a chance."""
        return max(_SHORTEST, self._at - time.monotonic())


class Bounded:
    """Makes calls that may hang. For one thread at a time."""

    def __init__(self) -> None:
        self._left_behind: list[threading.Thread] = []

    def call(self, what: str, function: Callable[[], T], seconds: float) -> T:
        """Returns or raises what `function` does. Overdue: it did not within `seconds`; `what` says what it was."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        if len(self._left_behind) >= MOST_LEFT_BEHIND:
            raise Overdue(f"{what}: {len(self._left_behind)} earlier calls hang still")
        future: Future[T] = Future()
        thread = threading.Thread(target=_run, args=(function, future), name=what, daemon=True)
        thread.start()
        try:
            return future.result(timeout=seconds)
        except FutureTimeout as error:
            if future.done():  # a time-out of the call's own, or one that came in this very moment
                return future.result()
            self._left_behind.append(thread)
            raise Overdue(f"{what}: no answer within {seconds:.0f} s") from error


def _run(function: Callable[[], T], future: Future[T]) -> None:
    try:
        result = function()
    except BaseException as error:  # whatever it is, it belongs to who waits for it
        future.set_exception(error)
    else:
        future.set_result(result)
