"""Who is told what: the log always, and a channel (people) where one is configured.

Failures are told twice in full, a third time with the word that no more follow, and then only logged, until a tick
works again. Ordinary messages are never held back meanwhile.
"""

from __future__ import annotations

from typing import Final, Protocol

from dewy.errors import ConfigError
from dewy.log import Log
from kvcache import redact

TOLD_FAILURES: Final = 3
"""Failures in a row that reach the channel."""
MOST_COUNTED: Final = 1000


class Channel(Protocol):
    """A way to reach people."""

    def send(self, message: str) -> None:
        """Sends one message. Never raises: what cannot be sent is logged."""


class NoChannel:
    """The log is enough."""

    def send(self, message: str) -> None:
        """Nobody is told."""


def open_channel(url: str) -> Channel:
    """The channel of a `--notifier` URL. ConfigError."""
    if not url:
        return NoChannel()
    raise ConfigError(f"--notifier: {redact(url)!r}: empty (the log); this version has no other")


class Notices:
    """Tells both, and counts failures in a row."""

    def __init__(self, log: Log, channel: Channel) -> None:
        self._log = log
        self._channel = channel
        self._failures = 0

    def tell(self, kind: str, message: str) -> None:
        """One piece of news: `kind` names it in the log, `message` is for people."""
        self._log.info(kind, message=message)
        self._channel.send(message)

    def failed(self, error: str) -> None:
        """A tick failed."""
        self._failures = min(self._failures + 1, MOST_COUNTED)
        self._log.error("Error count", count=self._failures, error=error)
        text = f"Error occurred (count: {self._failures}): {error}"
        if self._failures < TOLD_FAILURES:
            self._channel.send(text)
        elif self._failures == TOLD_FAILURES:
            self._channel.send(f"No more error notifications will be sent until it works again. {text}")

    def worked(self) -> None:
        """A tick did not fail."""
        if self._failures:
            self._log.info("Error count reset", **{"from": self._failures, "to": 0})
            self._failures = 0
