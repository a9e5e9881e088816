"""The application under supervision, as the loop sees it: from which release it runs, and how it was started."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Literal, TypeAlias

from dewy.events import Event, Restarted
from dewy.log import Log
from dewy.notify import Notices
from dewy.plan import Artifact
from dewy.supervision import Snapshot
from dewy.supervisor import Supervisor

Reason: TypeAlias = Literal["start", "deploy", "rollback", "operator"]

_WORDS: Final = {True: ("Start notification", "started"), False: ("Restart notification", "restarted")}


class Application:
    """One application. `run` is for the thread of the tick; `running` and `request_restart` for any."""

    def __init__(
        self, supervisor: Supervisor, notices: Notices, log: Log, emit: Callable[[Event], None], *, ports: bool
    ) -> None:
        self._supervisor = supervisor
        self._notices = notices
        self._log = log
        self._emit = emit
        self._ports = "" if ports else " without port"
        self.running: Artifact | None = None
        """What it was last started from; None: it never came up."""

    def run(self, artifact: Artifact, reason: Reason) -> None:
        """Starts it from what is current, or lets that take over from what runs. StartFailed."""
        first = self.running is None
        self._log.info("Start server" if first else "Restart server", version=artifact.tag)
        self._supervisor.restart()
        self.running = artifact
        kind, word = _WORDS[first]
        self._notices.tell(kind, f"Server {word} for `{artifact.tag}`{self._ports}")
        self._emit(Restarted(artifact.tag, reason))

    def request_restart(self, why: str, done: Callable[[], None]) -> None:
        """Lets a new process of the same release take over; `done` is called when that has come to its end."""
        running = self.running
        if running is None:
            self._log.info("Nothing to restart", reason=why)
            done()
            return

        def ended(future: Future[None]) -> None:
            if error := future.exception():
                self._log.error("Server restart failure", version=running.tag, error=error)
            else:
                self._notices.tell("Restart notification", f"Restarted receiving by `{why}` signal")
                self._emit(Restarted(running.tag, "signal"))
            done()

        self._supervisor.request_restart().add_done_callback(ended)

    def snapshot(self) -> Snapshot:
        """What runs now. Never blocks."""
        return self._supervisor.snapshot()

    def stop(self) -> None:
        """Returns when it has ended."""
        self._supervisor.stop()
