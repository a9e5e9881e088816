"""Children that this process never started: collected where it is process 1 of a container, as init does.

A process whose parent has died becomes a child of process 1. When it ends, somebody has to collect it, or its entry
stays in the table of processes for ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

GRACE: Final = 5.0
"""Seconds. Who started a process waits for it, so a dead one that nobody collects for this long has no parent here."""


class Reaper:
    """Collects adopted children that have ended. Linux; elsewhere it finds none."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._seen: dict[int, float] = {}

    def reap(self, known: Collection[int], now: float) -> list[int]:
        """Collects who has been dead for the grace, but nobody in `known`. Returns their process ids."""
        dead = {pid for pid in _dead_children() if pid not in known}
        self._seen = {pid: self._seen.get(pid, now) for pid in dead}
        overdue = [pid for pid, since in self._seen.items() if now - since >= self._grace]
        for pid in overdue:
            with contextlib.suppress(ChildProcessError):  # collected by its own parent just now
                os.waitpid(pid, os.WNOHANG)
        return overdue


def _dead_children() -> Iterator[int]:
    """Process ids of all zombies whose parent is this process."""
    if sys.platform != "linux":
        return
    me = str(os.getpid())
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            stat = (directory / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has gone meanwhile
        # "pid (name) state ppid ...": the name may hold blanks and parentheses itself.
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state == "Z" and parent == me:
            yield int(directory.name)
