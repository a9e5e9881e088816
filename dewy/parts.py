"""What a run of dewy is made of, as `dewy.assembly` opens it and `dewy.loop` works with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dewy.cachedir import Place
from dewy.config import Config
from dewy.events import Event, Listener
from dewy.log import Log
from dewy.notify import Notices
from dewy.registry import Registry
from dewy.release import Releases
from dewy.sharing import Sharing
from dewy.state import StateFile
from dewy.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Parts:
    """All of it; who opened a part closes it."""

    config: Config
    env: Mapping[str, str]
    registry: Registry
    sharing: Sharing
    releases: Releases
    state: StateFile
    place: Place
    supervisor: Supervisor | None
    """None in assets mode."""
    notices: Notices
    log: Log
    phase: float
    """Seconds, see `dewy.schedule`."""
    listeners: tuple[Listener, ...] = ()
    hide: Callable[[str], str] = str
    """Takes secrets out of what is written down for others."""

    def emit(self, event: Event) -> None:
        """Tells every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:  # who listens must not be able to fail a deploy
                self.log.exception("listener failed", error)
