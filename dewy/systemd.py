"""What systemd is told, over its notification socket; nothing where there is none.

The protocol is one datagram of `NAME=value` lines, so there is no library behind it. `READY=1` is sent when the first
tick is over (what is deployed runs by then, if it can), `RELOADING=1` around a restart by SIGHUP, `STOPPING=1` at the
end, and `WATCHDOG=1` as long as the loop turns. Also here: the priorities with which journald files lines of the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Final, TextIO

_LONGEST: Final = 200
"""Characters of a status line that are of any use in `systemctl status`."""
_WAIT: Final = 3600.0
"""Seconds between two looks of a loop that nobody watches."""


class Systemd:
    """Notifications to one socket: `path` as in NOTIFY_SOCKET, empty for none. For any threads.

    `watchdog_interval`: seconds after which `alive` is due again.
    """

    def __init__(self, path: str, watchdog: float | None = None) -> None:
        # A leading @ stands for a NUL: a name that is in no file system.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self.watchdog_interval: Final = watchdog / 2 if watchdog is not None else _WAIT
        self._lock = threading.Lock()  # guards what was last said
        self._started = False
        self._status = ""

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Systemd:
        """As the environment says. A watchdog that is meant for another process is not ours to feed."""
        text, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
        mine = text.isdecimal() and int(text) > 0 and pid in ("", str(os.getpid()))
        return cls(env.get("NOTIFY_SOCKET", ""), int(text) / 1e6 if mine else None)

    def started(self) -> None:
        """It is ready for the first time. Later calls say nothing."""
        with self._lock:
            first, self._started = not self._started, True
        if first:
            self.ready()

    def ready(self) -> None:
        """It is ready: started, or done with reloading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A restart of the application begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It is ending."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The watchdog may rest."""
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """One line for `systemctl status`; said again only when it is another."""
        shown = " ".join(line.split())[:_LONGEST]
        with self._lock:
            new, self._status = shown != self._status, shown
        if new:
            self._send(f"STATUS={shown}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # Nobody listens any more, or the queue is full: the service matters more than what is said about it.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(1.0)
            out.sendto(text.encode("utf-8", "surrogateescape"), self._address)


# -- the journal -------------------------------------------------------------------------------------------------------

_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
"""The least level of each priority of syslog."""


def is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether what is written to `stream` goes to journald."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Prioritised(logging.Formatter):
    """Another formatter's lines, each with the priority that journald takes off again: `<3>` for an error."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{self._inner.format(record)}"
