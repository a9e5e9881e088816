"""An operator's word about the releases of a node: roll back, pin, unpin. Whether dewy runs there or not.

A command writes its word into the node's state and switches `current`, both in one step each. A dewy that runs finds
at its next tick, for which it is woken, that something else is deployed than it runs, and lets that take over; one that
is started later starts from it. Each function returns one line for the operator, or raises DewyError.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from dewy.deployed import artifact_of, tag_of
from dewy.errors import DewyError
from dewy.history import History
from dewy.live import read_live
from dewy.release import Release, Releases
from dewy.state import State, StateFile

WAKE: Final = signal.SIGUSR2
"""Has a running dewy tick at once."""


class Control:
    """The node whose working directory is `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._releases = Releases(root)
        self._file = StateFile(root)
        self._history = History(self._file.directory)

    def rollback(self, tag: str | None = None) -> str:
        """Goes back to the release of a tag, or to the last good one. What is left is not deployed again as it is."""
        current = self._releases.deployed()
        if current is None:
            raise DewyError(f"{self._root}: nothing is deployed here")
        to = self._find(tag) if tag is not None else self._before(current)
        if to.id == current.id:
            raise DewyError(f"{tag_of(to)} is deployed already")

        def word(state: State) -> State:
            if state.pin is not None:
                state = state.pinned(tag_of(to))
            rejected = state.accept(tag_of(to)).reject(artifact_of(current), "left by an operator", time.time())
            return rejected.failed(current.id)

        self._file.change(word)
        self._releases.switch(to)
        self._history.add("rolled back", tag=tag_of(current), to=tag_of(to), reason="an operator's word")
        return f"rolled back from {tag_of(current)} to {tag_of(to)}{self._wake()}"

    def pin(self, tag: str) -> str:
        """Stays at a tag, whatever the registry announces, until `unpin`. Crashes lead to no other release either."""
        current = self._releases.deployed()
        there = self._releases.find(tag)
        live = read_live(self._file.directory)
        announced = live is not None and (live.get("known") or {}).get("tag") == tag
        if there is None and not announced:
            raise self._unknown(tag)
        self._file.change(lambda state: state.pinned(tag))
        switched = there is not None and (current is None or tag_of(current) != tag)
        if there is not None and switched:
            self._releases.switch(there)
        self._history.add("pinned", tag=tag)
        later = "; it will be deployed when dewy next asks the registry" if there is None else ""
        return f"pinned to {tag}{later}{self._wake()}"

    def unpin(self) -> str:
        """Follows the registry again. What failed, or was left, has another chance."""
        before = self._file.read()
        self._file.change(State.unpinned)
        self._history.add("unpinned", tag=before.pin or "")
        given = sorted({one.artifact.tag for one in before.rejected})
        chance = f"; {', '.join(given)} may be tried again" if given else ""
        return f"{'unpinned from ' + before.pin if before.pin else 'no pin'}{chance}{self._wake()}"

    def _find(self, tag: str) -> Release:
        found = self._releases.find(tag)
        if found is None:
            raise self._unknown(tag)
        return found

    def _unknown(self, tag: str) -> DewyError:
        tags = ", ".join(dict.fromkeys(tag_of(one) for one in reversed(self._releases.all()))) or "none"
        return DewyError(f"{tag}: no release of it on this node: there are {tags}")

    def _before(self, current: Release) -> Release:
        """The last good one; where nothing is known of that (Dewy v2 was here before), the one that was made before."""
        good = self._releases.last_good(self._file.read().good)
        older = [one for one in self._releases.all() if one.id < current.id]
        if good is None and not older:
            raise DewyError(f"there is no release to go back to from {tag_of(current)}")
        return good if good is not None else older[-1]

    def _wake(self) -> str:
        pid = self._file.pid()
        if pid is None:
            return ""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it will see at its next tick, if it lives
            os.kill(pid, WAKE)
        return f"; dewy (pid {pid}) follows"
