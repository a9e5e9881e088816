"""Sending a request again: when that is safe, for how long, and what is known when it was all in vain."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from kvcache.clock import SYSTEM, Clock
from kvcache.errors import AmbiguousWrite, StoreUnavailable, Throttled

T = TypeVar("T")

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0


class Verdict(enum.Enum):
    """What an error says about the request it came from."""

    UNKNOWN = "it may have been carried out, or may still be"
    NOT_NOW = "it was not carried out, and may be a moment later"
    THROTTLED = "it was not carried out, and the server asks for a pause"
    NO = "it was not carried out, and will not be"
    HALF = "it failed on its way, part of it may have been carried out, and again would be no better"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error, judged. `reason` is one line without secrets; `retry_after` the pause asked for, in seconds."""

    verdict: Verdict
    reason: str
    retry_after: float | None = None


class Answer(NamedTuple, Generic[T]):
    """What the server said, and whether an earlier copy of the same request may have been carried out too."""

    value: T
    maybe_twice: bool


class Pace:
    """The pauses between the sendings of one request: twice as long each time, jittered, none beyond `deadline`."""

    def __init__(self, deadline: float, clock: Clock = SYSTEM, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._deadline = deadline
        self._pause = FIRST_PAUSE

    def again(self, at_least: float = 0.0) -> bool:
        """Sleeps before the next sending; False, at once, where that would come too late."""
        pause = max(at_least, self._pause * (0.5 + self._clock.chance() / 2))
        if self._clock.monotonic() + pause >= self._deadline:
            return False
        self._sleep(pause)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        return True


class Sender:
    """Sends requests to one store. `caught` are its client's exceptions, which `judge` understands."""

    def __init__(
        self,
        where: str,
        caught: tuple[type[Exception], ...],
        judge: Callable[[Exception], Trouble],
        within: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self._where = where
        self._caught = caught
        self._judge = judge
        self._within = within
        self._clock = clock

    def send(self, request: Callable[[], T], *, again: bool = True, writes: bool = False) -> Answer[T]:
        """What the server answers to `request`, which is repeated while its error says that this can help.

        `again`: it may be repeated even though it may have been carried out. AmbiguousWrite, if it `writes`, where it
        may have been and no answer came; Throttled; StoreUnavailable.
        """
        deadline, pace, maybe_done = self._clock.monotonic() + self._within, None, False
        while True:
            try:
                return Answer(request(), maybe_twice=maybe_done)
            except self._caught as error:
                trouble = self._judge(error)
                maybe_done = maybe_done or trouble.verdict in (Verdict.UNKNOWN, Verdict.HALF)
                hopeless = trouble.verdict in (Verdict.NO, Verdict.HALF) or (maybe_done and not again)
                pace = pace or Pace(deadline, self._clock)
                if hopeless or not pace.again(trouble.retry_after or 0.0):
                    raise self._outcome(trouble, ambiguous=maybe_done and writes) from error

    def ask(self, request: Callable[[], T]) -> T:
        """The answer to a request that may be carried out any number of times."""
        return self.send(request).value

    def _outcome(self, trouble: Trouble, *, ambiguous: bool) -> StoreUnavailable:
        message = f"{self._where}: {trouble.reason}"
        if ambiguous:
            return AmbiguousWrite(message)
        if trouble.verdict is Verdict.THROTTLED:
            return Throttled(message, retry_after=trouble.retry_after)
        return StoreUnavailable(message)
