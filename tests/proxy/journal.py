"""What the proxy did to which request: the history that a failing test prints."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

from tests.proxy.faults import Action


@dataclass(slots=True)
class Entry:
    """One request. `upstream`: the server's statuses, one for each copy that reached it. `answered`: what the client
    was told, or None. `at`: seconds since the proxy started. `sent`: bytes of the request's body (TCP: of the block).
    """

    number: int
    at: float
    connection: int
    method: str
    target: str
    condition: str = ""
    action: Action | None = None
    sent: int = 0
    upstream: list[int] = field(default_factory=list)
    answered: int | None = None
    note: str = ""
    over: bool = False

    def __str__(self) -> str:
        what = " ".join(part for part in (self.method, self.target, self.condition) if part)
        server = ",".join(map(str, self.upstream)) or "-"
        client = "-" if self.answered is None else self.answered
        tail = " | ".join(part for part in (repr(self.action) if self.action else "", self.note) if part)
        state = "" if self.over else " (under way)"
        head = f"#{self.number} +{self.at:.3f}s c{self.connection} {what} [{self.sent} B]"
        return f"{head} -> server {server}, client {client}{state} {tail}".rstrip()


class Journal:
    """Thread-safe: the proxy's loop writes, tests read."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._count = 0
        self._began = time.monotonic()
        # Guards both, and every change of an entry; notified when an entry is over.
        self._changed = threading.Condition()

    def open(self, connection: int, method: str, target: str, condition: str, action: Action | None) -> Entry:
        """A new entry, under way until `close`."""
        with self._changed:
            self._count += 1
            at = time.monotonic() - self._began
            entry = Entry(self._count, at, connection, method, target, condition, action)
            self._entries.append(entry)
            return entry

    def close(self, entry: Entry) -> None:
        """Nothing happens to this request any more."""
        with self._changed:
            entry.over = True
            self._changed.notify_all()

    def entries(self) -> list[Entry]:
        """A copy, oldest first."""
        with self._changed:
            return [replace(entry, upstream=list(entry.upstream)) for entry in self._entries]

    def clear(self) -> None:
        """Forgets what is over."""
        with self._changed:
            self._entries = [entry for entry in self._entries if not entry.over]

    def wait_idle(self, timeout: float) -> bool:
        """Waits until no request is under way, delayed ones included; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: all(entry.over for entry in self._entries), timeout)
