"""The node's state as a running dewy goes by it: the file's, and what a disk that takes no writes keeps out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dewy.errors import DeployError
from dewy.log import Log
from dewy.state import State, StateFile

Change: TypeAlias = Callable[[State], State]


class Memory:
    """`state` never fails: while the file cannot be read, what was last known holds. For one thread."""

    def __init__(self, file: StateFile, log: Log) -> None:
        self._file = file
        self._log = log
        self._unwritten: list[Change] = []
        self._problem = ""
        self.state = State()

    def refresh(self) -> None:
        """Looks at the file: an operator may have changed it."""
        try:
            state = self._file.change(self._all) if self._unwritten else self._file.read()
        except DeployError as error:
            self._failed(error)
        else:
            self._unwritten.clear()
            self._problem = ""
            self.state = state

    def note(self, change: Change) -> None:
        """Changes the state, in the file too as soon as that is possible."""
        self.state = change(self.state)
        self._unwritten.append(change)
        self.refresh()

    def _all(self, state: State) -> State:
        for change in self._unwritten:
            state = change(state)
        return state

    def _failed(self, error: DeployError) -> None:
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.warn("cannot keep the state of this node; going on without", error=error)
