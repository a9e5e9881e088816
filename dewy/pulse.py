"""Whether the loop still turns: for systemd's watchdog, and for whoever asks `/healthz`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from dewy.config import Config

SLACK: Final = 120.0
"""Seconds beyond what the options allow: a machine that swaps, a large artifact that is unpacked, is not stuck."""


def longest_silence(config: Config) -> float:
    """Seconds that may pass between two signs of life of a loop that is well."""
    hooks = 2 * config.hook_timeout
    # A start may be tried in either half of a tick.
    tick = config.tick_timeout + hooks + 2 * config.health_timeout
    return max(tick, config.interval) + SLACK


class Pulse:
    """Signs of life. For any threads."""

    def __init__(self, config: Config, now: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest_silence(config)
        self._now = now
        self._lock = threading.Lock()
        self._last = now()
        self._in_tick = False

    def tick_began(self) -> None:
        """A tick has begun."""
        self._beat(in_tick=True)

    def tick_ended(self) -> None:
        """It has ended, whatever came of it."""
        self._beat(in_tick=False)

    def _beat(self, in_tick: bool) -> None:
        with self._lock:
            self._last, self._in_tick = self._now(), in_tick

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life."""
        with self._lock:
            return self._now() - self._last

    @property
    def in_tick(self) -> bool:
        """Whether a tick is under way."""
        with self._lock:
            return self._in_tick

    def beats(self) -> bool:
        """False: it is stuck, and only a new process will help."""
        return self.silent_for <= self._longest
