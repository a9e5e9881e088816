"""Waiting for a message on a Redis channel: one pub/sub connection and one thread for all who wait.

Pub/sub delivers at most once, and only while the connection stands. So a message is a hint and nothing more: whoever
waits is also woken when its subscription begins and when it is lost, looks for itself, and looks now and then anyway.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from redis.exceptions import RedisClusterException, RedisError

TICK: Final = 0.05
"""Seconds after which the thread looks for new listeners, while it waits for messages for the others. It alone uses
the connection: two threads on one TLS connection would be one too many."""
LINGER: Final = 10.0
"""Seconds for which the connection is kept when nobody listens."""
POLL_SUBSCRIBED: Final = 5.0
"""Seconds between two looks at a key while its channel is subscribed to: a message can be lost."""
POLL_DEAF: Final = 0.5
"""The same while it is not."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0


class PubSub(Protocol):
    """What is used of redis-py's pub/sub object."""

    def subscribe(self, *channels: bytes) -> Any: ...
    def unsubscribe(self, *channels: bytes) -> Any: ...
    def get_message(self, ignore_subscribe_messages: bool = ..., timeout: float = ...) -> Any: ...
    def close(self) -> None: ...


class Ear:
    """One listener's end."""

    def __init__(self, ring: Callable[[], None] | None) -> None:
        self._subscribed = False
        self._rang = threading.Event()
        self._ring = ring or self._rang.set

    def ring(self, *, subscribed: bool) -> None:
        """Called by the thread that listens, under its lock. `subscribed`: a message sent now would arrive."""
        self._subscribed = subscribed
        self._ring()

    @property
    def patience(self) -> float:
        """Seconds after which the listener looks for itself, though nothing rang."""
        return POLL_SUBSCRIBED if self._subscribed else POLL_DEAF

    def wait(self, timeout: float) -> None:
        """Returns when something has happened since the last wait: a message, a subscription begun or ended."""
        self._rang.wait(timeout)
        self._rang.clear()


class Channels:
    """Hands out ears. The thread starts with the first and ends LINGER seconds after the last."""

    def __init__(self, connect: Callable[[], PubSub]) -> None:
        self._connect = connect
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        # Protects everything below; told when an ear comes, and when the store is closed.
        self._changed = threading.Condition()
        self._ears: dict[bytes, set[Ear]] = {}
        self._confirmed: set[bytes] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def listen(self, channel: bytes, ring: Callable[[], None] | None = None) -> Iterator[Ear]:
        """An ear on `channel`. Subscribing goes on in the background; the ear rings when it is done.

        `ring`: called, from another thread, in place of waking `Ear.wait`; it must not block.
        """
        if self._pid != os.getpid():  # we are a forked child: the thread, and the lock's owner, stayed behind
            self._forget()
        ear = Ear(ring)
        with self._changed:
            self._ears.setdefault(channel, set()).add(ear)
            if channel in self._confirmed:
                ear.ring(subscribed=True)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="kvcache-redis-watch", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            yield ear
        finally:
            with self._changed:
                self._ears[channel].discard(ear)
                if not self._ears[channel]:
                    del self._ears[channel]

    def close(self) -> None:
        """Ends the thread. Ears still out there ring no more."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and self._pid == os.getpid():
            thread.join(timeout=1.0)  # it may be in the middle of a connect; it ends by itself

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                with contextlib.closing(self._connect()) as pubsub:
                    asked: set[bytes] = set()
                    while self._is_wanted():
                        self._follow(pubsub, asked)
                        pause = FIRST_PAUSE
            except (RedisError, RedisClusterException, OSError):
                pass  # whatever it was, the cure is a new connection
            with self._changed:
                self._confirmed.clear()
                for ears in self._ears.values():
                    for ear in ears:
                        ear.ring(subscribed=False)
                self._changed.wait_for(lambda: self._closed, pause if self._ears else 0)
                if self._closed or not self._ears:
                    self._thread = None  # under the lock: whoever comes next starts a new one
                    return
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _is_wanted(self) -> bool:
        """Whether somebody listens, or comes to listen within LINGER seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ears, LINGER)
            return bool(self._ears) and not self._closed

    def _follow(self, pubsub: PubSub, asked: set[bytes]) -> None:
        """Brings the subscriptions (`asked`) up to date, then hears one message, or none for a TICK."""
        with self._changed:
            wanted = set(self._ears)
            self._confirmed &= wanted
        if old := asked - wanted:
            pubsub.unsubscribe(*old)
            asked -= old
        if new := wanted - asked:
            pubsub.subscribe(*new)
            asked |= new
        message = pubsub.get_message(timeout=TICK)
        if message is None or message["type"] not in ("subscribe", "message") or message["channel"] not in asked:
            return
        with self._changed:
            self._confirmed.add(message["channel"])
            for ear in self._ears.get(message["channel"], ()):
                ear.ring(subscribed=True)
