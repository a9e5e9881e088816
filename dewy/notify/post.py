"""All channels of a node: what is told once goes out through each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dewy.log import Log
from dewy.notify.message import Channel, Message
from dewy.notify.once import Once
from dewy.notify.outbox import LAST_WORDS, Outbox, Outcome


class Post:
    """An outbox for each channel, with a thread of its own, so that one that hangs holds up no other."""

    def __init__(
        self, channels: Sequence[Channel], log: Log, *, on_outcome: Callable[[Outcome], None] = lambda outcome: None
    ) -> None:
        self._outboxes = [Outbox(channel, log, on_outcome=on_outcome) for channel in channels]

    def put(self, message: Message) -> None:
        """Takes a message, before `start` too. Never blocks, never raises."""
        for outbox in self._outboxes:
            outbox.put(message)

    def start(self, once: Once | None = None) -> None:
        """Sends from now on; `once`: what the fleet has not told yet."""
        for outbox in self._outboxes:
            outbox.start(once)

    def close(self, patience: float = LAST_WORDS) -> None:
        """Sends what waits, for `patience` seconds at most."""
        until = time.monotonic() + patience
        for outbox in self._outboxes:
            outbox.close(max(0.0, until - time.monotonic()))
