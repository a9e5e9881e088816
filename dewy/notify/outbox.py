"""Sends messages in a thread of its own, so that no service of notifications can hold up a tick or a deploy."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from dewy.log import Log, one_line
from dewy.notify.message import Channel, Message, NotSent, Weight
from dewy.notify.once import Later, Mine, Once, Told

ROOM: Final = 100
"""Messages that wait at most; what comes on top of them is only logged."""
RETRIES: Final = (2.0, 10.0, 30.0)
"""Seconds before each further try."""
LONGEST_PAUSE: Final = 300.0
"""Seconds, whatever a service asks for."""
LAST_WORDS: Final = 5.0
"""Seconds in which what still waits is sent when dewy ends."""

Outcome: TypeAlias = Literal["sent", "failed", "dropped", "told by another node"]


@dataclass(order=True, slots=True)
class _Letter:
    due: float
    number: int
    message: Message = field(compare=False)
    tries: int = field(default=0, compare=False)
    claim: Mine | None = field(default=None, compare=False)


class Outbox:
    """Messages on their way through one channel. `put` from any thread; `start` once; `close` when all is over.

    `on_outcome` is told what came of each message.
    """

    def __init__(
        self,
        channel: Channel,
        log: Log,
        *,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
        monotonic: Callable[[], float] = time.monotonic,
        retries: tuple[float, ...] = RETRIES,
    ) -> None:
        self._channel = channel
        self._log = log
        self._once: Once | None = None
        self._on_outcome = on_outcome
        self._monotonic = monotonic
        self._retries = retries
        self._changed = threading.Condition()  # guards what follows
        self._letters: list[_Letter] = []
        self._number = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)

    def start(self, once: Once | None = None) -> None:
        """What was put in is sent from now on. `once`: asks the fleet first."""
        self._once = once
        self._thread.start()

    def put(self, message: Message) -> None:
        """Takes a message. Never blocks, never raises."""
        if self._channel.quiet and message.weight is Weight.NEWS:
            return
        with self._changed:
            full = self._closing or len(self._letters) >= ROOM
            if not full:
                self._push(_Letter(self._monotonic(), 0, message))
        if full:
            self._log.warn("Notification dropped", channel=self._channel.name, message=message.text)
            self._on_outcome("dropped")

    def close(self, patience: float = LAST_WORDS) -> None:
        """Sends what waits, for `patience` seconds at most. What another node has in hand, or has failed, is left."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
        hangs = self._thread.is_alive()
        with self._changed:
            left = len(self._letters) + hangs
        if left:
            self._log.warn("Notifications left unsent", channel=self._channel.name, count=left)
        if not hangs:
            self._channel.close()

    def _push(self, letter: _Letter) -> None:
        """Caller holds the lock."""
        self._number += 1
        letter.number = self._number
        heapq.heappush(self._letters, letter)
        self._changed.notify()

    def _work(self) -> None:
        while (letter := self._next()) is not None:
            try:
                self._handle(letter)
            except Exception as error:
                # A fault of ours, or of a library's: it must not silence what comes after.
                self._log.exception(self._channel.failure, error, channel=self._channel.name)
                self._on_outcome("failed")

    def _next(self) -> _Letter | None:
        """The next one that is due; None: all is over. At the end only those that nothing has held up yet are sent."""
        with self._changed:
            while True:
                wait = self._letters[0].due - self._monotonic() if self._letters else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._letters)
                if self._closing:
                    return None
                self._changed.wait(wait)

    def _handle(self, letter: _Letter) -> None:
        if self._once is not None and letter.claim is None:
            match self._once.claim(letter.message, self._channel.name):
                case Told():
                    self._on_outcome("told by another node")
                    return
                case Later(seconds):
                    self._put_off(letter, seconds)
                    return
                case Mine() as claim:
                    letter.claim = claim
        try:
            self._channel.send(letter.message)
        except NotSent as error:
            self._failed(letter, error)
            return
        self._on_outcome("sent")
        if self._once is not None and letter.claim is not None:
            self._once.sent(letter.claim)

    def _failed(self, letter: _Letter, error: NotSent) -> None:
        if error.again and letter.tries < len(self._retries):
            self._log.debug("Notification will be tried again", channel=self._channel.name, error=one_line(error))
            pause = min(error.pause or 0.0, LONGEST_PAUSE)
            letter.tries += 1
            self._put_off(letter, max(pause, self._retries[letter.tries - 1]))
            return
        self._log.error(self._channel.failure, channel=self._channel.name, error=one_line(error))
        self._on_outcome("failed")

    def _put_off(self, letter: _Letter, seconds: float) -> None:
        with self._changed:
            letter.due = self._monotonic() + seconds
            self._push(letter)
