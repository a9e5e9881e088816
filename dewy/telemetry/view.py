"""What the node last did, for /api/status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from dewy import events as ev


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen so far. `*_at` in seconds since the Unix epoch, 0 for never; empty texts: nothing."""

    started_at: float
    last_tick_at: float = 0.0
    last_success_at: float = 0.0
    """The end of the last turn of the loop without an error."""
    ticks: int = 0
    error: str = ""
    """Of the last turn."""
    tag: str = ""
    """Of the release that was put in place, started, or rolled back to."""
    deployed_at: float = 0.0
    failed_tag: str = ""
    """Of the last deploy, if it failed."""


def after(seen: Seen, event: ev.Event, now: float) -> Seen:
    """What is known after an event."""
    match event:
        case ev.TickEnded(error=error):
            success = seen.last_success_at if error else now
            return replace(seen, last_tick_at=now, last_success_at=success, ticks=seen.ticks + 1, error=error)
        case ev.Deployed(tag=tag):
            return replace(seen, tag=tag, deployed_at=now, failed_tag="")
        case ev.DeployFailed(tag=tag):
            return replace(seen, failed_tag=tag)
        case ev.RolledBack(to=to):
            return replace(seen, tag=to)
        case ev.Restarted(tag=tag):
            return replace(seen, tag=tag)
        case _:
            return seen


class View:
    """Listens to the node. For any number of threads. `now`: seconds since the Unix epoch."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()  # guards the next one
        self._seen = Seen(started_at=now())

    @property
    def seen(self) -> Seen:
        """As of now."""
        with self._lock:
            return self._seen

    def on_node(self, event: ev.Event) -> None:
        """Takes what happened."""
        with self._lock:
            self._seen = after(self._seen, event, self._now())
