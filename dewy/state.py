"""What a node remembers of its releases beyond the releases themselves, for this dewy, the next one, and operators.

    ROOT/releases/.dewy/state.json      what is pinned, what was rejected and why, which releases served well
    ROOT/releases/.dewy/.lock           held while that is changed, by `dewy pin` and the like or by a running dewy
    ROOT/releases/.dewy/running         locked by the dewy that runs here, for as long as it lives; holds its process id

Every change is one step: a reader sees the state before it or after it, whatever is killed in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

from dewy.errors import DeployError
from dewy.lockfile import open_lock, try_lock
from dewy.plan import Artifact, Rejected

DIRECTORY: Final = ".dewy"
"""In `releases/`, whose other names are releases."""
PATIENCE: Final = 10.0
"""Seconds to wait for another process that changes the state; it takes milliseconds unless it is stopped."""
SECOND_LOOK: Final = 2.0
"""Seconds to try for the place of the one dewy: whoever only looks whether it is taken holds it for an instant."""
MOST_REJECTED: Final = 20
MOST_GOOD: Final = 50


@dataclass(frozen=True, slots=True)
class State:
    """One node's memory. Values: each method gives the next one."""

    pin: str | None = None
    """The tag to stay at."""
    rejected: tuple[Rejected, ...] = ()
    """The newest last."""
    good: tuple[str, ...] = ()
    """Ids of releases that were deployed and came up, in the order of their service."""

    def served(self, id: str) -> Self:
        """A release has come up."""
        if self.good[-1:] == (id,):
            return self
        return replace(self, good=(*(other for other in self.good if other != id), id)[-MOST_GOOD:])

    def failed(self, id: str) -> Self:
        """A release is good no more."""
        return replace(self, good=tuple(other for other in self.good if other != id))

    def reject(self, artifact: Artifact, why: str, at: float) -> Self:
        """An artifact is not to be deployed again as it is."""
        others = (one for one in self.rejected if not one.artifact.is_unchanged(artifact))
        return replace(self, rejected=(*others, Rejected(artifact, why, at))[-MOST_REJECTED:])

    def accept(self, tag: str) -> Self:
        """Nothing is held against a tag any more."""
        return replace(self, rejected=tuple(one for one in self.rejected if one.artifact.tag != tag))

    def pinned(self, tag: str) -> Self:
        """An operator's word: stay at this tag, whatever was held against it."""
        return replace(self.accept(tag), pin=tag)

    def unpinned(self) -> Self:
        """An operator's word: follow the registry again, and give everything another chance."""
        return replace(self, pin=None, rejected=())


class StateFile:
    """The state of the node whose releases lie below a root. Any number of these, in any number of processes."""

    def __init__(self, root: Path | str, *, patience: float = PATIENCE) -> None:
        self.directory = Path(root).resolve() / "releases" / DIRECTORY
        self.path = self.directory / "state.json"
        self._running = self.directory / "running"
        self._patience = patience

    def read(self) -> State:
        """The state; empty before anything was written. DeployError: the file is not ours, or cannot be read."""
        try:
            return from_json(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise DeployError(f"{self.path}: {error.strerror or error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise DeployError(f"{self.path}: not readable; move it away, and this node begins anew") from error

    def change(self, how: Callable[[State], State]) -> State:
        """Applies a change to the state as it is now, durably, and returns the result. DeployError: the disk's."""
        try:
            with self._lock():
                before = self.read()
                after = how(before)
                if after != before:
                    write_whole(self.path, json.dumps(to_json(after), ensure_ascii=False, indent=1) + "\n")
                return after
        except OSError as error:
            raise DeployError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with open_lock(self.directory / ".lock") as fd:
            if not _lock_within(fd, self._patience):
                raise DeployError(f"another process has been changing {self.path} for {self._patience:g}s")
            yield

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Holds the place of the one dewy that may run here. DeployError: another one does. OSError: the disk's."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open_lock(self._running) as fd:
            if not _lock_within(fd, SECOND_LOOK):
                raise DeployError(f"another dewy (pid {self.pid() or '?'}) runs in {self.directory.parents[1]}")
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
            yield

    def pid(self) -> int | None:
        """The process id of the dewy that runs here; None: none does, or this user may not know."""
        try:
            with self._running.open(encoding="ascii") as file:
                return None if try_lock(file.fileno()) else int(file.read())
        except (OSError, ValueError):
            return None


def _lock_within(fd: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def write_whole(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a file in one step. OSError, and then the old one stands and nothing else is left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(state: State) -> dict[str, Any]:
    """As the file holds it."""
    rejected = [{**asdict(one.artifact), "why": one.why, "at": one.at} for one in state.rejected]
    return {"format": 1, "pin": state.pin, "rejected": rejected, "good": list(state.good)}


_ARTIFACT: Final = tuple(field.name for field in fields(Artifact))


def from_json(value: Any) -> State:
    """What `to_json` made. ValueError, LookupError, TypeError: something else."""
    pin, good = value["pin"], value["good"]
    if not (pin is None or isinstance(pin, str)) or not all(isinstance(id, str) for id in good):
        raise ValueError("no state")
    rejected = tuple(
        Rejected(Artifact(**{name: one[name] for name in _ARTIFACT}), str(one["why"]), float(one["at"]))
        for one in value["rejected"]
    )
    return State(pin, rejected, tuple(good))
